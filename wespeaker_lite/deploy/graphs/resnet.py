"""The graph of ResNet."""

import numpy as np
from torch import nn

from wespeaker_lite.deploy.graphs.builder import Graph
from wespeaker_lite.deploy.graphs.pooling import pool
from wespeaker_lite.models.resnet import BasicBlock, Model


def build(graph: Graph, model: Model, feats: str) -> str:
    """Feats (B, T, num_mels) -> embeddings (B, embed_dim)."""
    image = graph.add("Unsqueeze", graph.add("Transpose", feats, perm=[0, 2, 1]), np.array([1]))
    conv, norm, _ = model.stem
    maps = graph.add("Relu", graph.conv_of(image, conv, norm))
    for stage in model.stages:
        for block in stage:
            maps = _block(graph, block, maps)
    channels = model.pooling.out_dim // 2
    pooled = graph.add("Flatten", pool(graph, model.pooling, graph.shape(maps, 0, channels, -1)))
    return graph.add("Gemm", pooled, model.embedding.weight, model.embedding.bias, transB=1)


def _block(graph: Graph, block: BasicBlock, maps: str) -> str:
    inner = graph.add("Relu", graph.conv_of(maps, block.conv1, block.norm1))
    shortcut = maps
    if isinstance(block.shortcut, nn.Sequential):
        shortcut = graph.conv_of(maps, *block.shortcut)
    return graph.add("Relu", graph.add("Add", graph.conv_of(inner, block.conv2, block.norm2), shortcut))
