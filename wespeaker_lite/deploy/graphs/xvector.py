"""The graph of the x-vector TDNN. Norms are not folded, since padded convolutions follow them."""

from wespeaker_lite.deploy.graphs.builder import Graph
from wespeaker_lite.deploy.graphs.pooling import pool
from wespeaker_lite.models.xvector import Model


def build(graph: Graph, model: Model, feats: str) -> str:
    """Feats (B, T, num_mels) -> embeddings (B, embed_dim)."""
    maps = graph.add("Transpose", feats, perm=[0, 2, 1])
    for conv, _, norm in (*model.layers, model.widen):
        maps = graph.norm_of(graph.add("Relu", graph.conv_of(maps, conv)), norm)
    return graph.linear_of(graph.add("Flatten", pool(graph, model.pooling, maps)), model.embedding)
