"""The graph of ResNet."""

from wespeaker_lite.deploy.graphs.builder import Graph
from wespeaker_lite.deploy.graphs.pooling import pool
from wespeaker_lite.models.resnet import Model


def build(graph: Graph, model: Model, feats: str) -> str:
    """Feats (B, T, num_mels) -> embeddings (B, embed_dim)."""
    conv, norm, _ = model.stem
    maps = graph.add("Relu", graph.conv_of(graph.image_of(feats), conv, norm))
    for stage in model.stages:
        for block in stage:
            maps = graph.basic_block(maps, (block.conv1, block.norm1), (block.conv2, block.norm2), block.shortcut)
    channels = model.pooling.out_dim // 2
    pooled = graph.add("Flatten", pool(graph, model.pooling, graph.shape(maps, 0, channels, -1)))
    return graph.linear_of(pooled, model.embedding)
