"""The graph of NeXt-TDNN."""

import numpy as np

from wespeaker_lite.deploy.graphs.builder import Graph
from wespeaker_lite.deploy.graphs.pooling import pool
from wespeaker_lite.models.next_tdnn import FeedForward, Model, MultiScale, ResponseNorm, TimeConv


def build(graph: Graph, model: Model, feats: str) -> str:
    """Feats (B, T, num_mels) -> embeddings (B, embed_dim)."""
    pad, conv, norm = model.stem
    maps = graph.add("Transpose", feats, perm=[0, 2, 1])
    maps = graph.channel_norm(graph.add("Conv", maps, conv.weight, conv.bias, pads=list(pad.padding)), norm)
    outputs = []
    for stage in model.stages:
        for block in stage:
            maps = graph.add("Add", maps, _over_time(graph, block.over_time, maps))
            maps = graph.add("Add", maps, _feed_forward(graph, block.feed_forward, maps))
        outputs.append(maps)
    conv, norm = model.aggregate
    maps = graph.channel_norm(graph.conv_of(graph.add("Concat", *outputs, axis=1), conv), norm)
    pooled = graph.add("Flatten", pool(graph, model.pooling, maps))
    return graph.linear_of(pooled, model.embedding, before=model.norm, after=model.embedding_norm)


def _over_time(graph: Graph, layer: TimeConv | MultiScale, maps: str) -> str:
    if isinstance(layer, MultiScale):
        inner = graph.gelu(_over_time(graph, layer.conv, graph.conv_of(maps, layer.before)))
        return graph.conv_of(inner, layer.after)
    groups = [maps] if len(layer.convs) == 1 else graph.split("Split", len(layer.convs), maps, axis=1)
    convolved = [graph.conv_of(group, conv) for conv, group in zip(layer.convs, groups, strict=True)]
    return convolved[0] if len(convolved) == 1 else graph.add("Concat", *convolved, axis=1)


def _feed_forward(graph: Graph, layer: FeedForward, maps: str) -> str:
    wide = graph.gelu(graph.conv_of(graph.channel_norm(maps, layer.norm), layer.widen))
    return graph.conv_of(_response(graph, layer.response, wide), layer.narrow)


def _response(graph: Graph, layer: ResponseNorm, maps: str) -> str:
    lengths = graph.add("ReduceL2", maps, axes=[2], keepdims=1)
    response = graph.add("Div", lengths, graph.add("Add", graph.mean(lengths, 1), np.array(1e-6)))
    factor = graph.add("Add", graph.add("Mul", response, layer.gain), np.array(1.0))
    return graph.add("Add", graph.add("Mul", maps, factor), layer.bias)
