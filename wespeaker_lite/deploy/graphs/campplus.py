"""The graph of CAM++."""

import numpy as np
from torch import nn

from wespeaker_lite.deploy.graphs.builder import Graph
from wespeaker_lite.deploy.graphs.pooling import statistics
from wespeaker_lite.models.campplus import SEGMENT_FRAMES, ContextMask, DenseLayer, Head, Model


def build(graph: Graph, model: Model, feats: str) -> str:
    """Feats (B, T, num_mels) -> embeddings (B, embed_dim)."""
    parts = model.xvector
    stem = parts["tdnn"]
    maps = graph.add("Relu", graph.conv_of(_head(graph, model.head, feats), stem.linear, stem.nonlinear.batchnorm))
    segments = _Segments(graph, maps)
    for name, part in parts.items():
        if name.startswith("block"):
            for layer in part.values():
                maps = _dense_layer(graph, layer, maps, segments)
        elif name.startswith("transit"):
            maps = graph.conv_of(_norm_relu(graph, part.nonlinear, maps), part.linear)
    pooled = statistics(graph, _norm_relu(graph, parts["out_nonlinear"], maps), unbiased=True)
    dense = parts["dense"]
    return graph.add("Flatten", graph.conv_of(pooled, dense.linear, dense.nonlinear.batchnorm))


class _Segments:
    """Context pooling as two matrix products. The matrices depend on the length, and are computed once for all layers.

    averages (T, n): gives the mean of each segment plus the mean of all frames. members (n, T): 1 if a frame is in a
    segment.
    """

    def __init__(self, graph: Graph, maps: str) -> None:
        frames = graph.add("Squeeze", graph.size(maps, 2))
        one = np.array(1, np.int64)
        places = graph.add("Range", np.array(0, np.int64), frames, one)
        count = graph.add("Div", graph.add("Add", frames, np.array(SEGMENT_FRAMES - 1)), np.array(SEGMENT_FRAMES))
        numbers = graph.add("Unsqueeze", graph.add("Range", np.array(0, np.int64), count, one), np.array([1]))
        own = graph.add("Div", places, np.array(SEGMENT_FRAMES))
        self.members = graph.add("Cast", graph.add("Equal", own, numbers), to=1)
        sizes = graph.sum(self.members, 1)
        share = graph.add("Div", np.array(1.0), graph.add("Cast", frames, to=1))
        averages = graph.add("Add", graph.add("Div", self.members, sizes), share)
        self.averages = graph.add("Transpose", averages, perm=[1, 0])


def _norm_relu(graph: Graph, layers: nn.Sequential, maps: str) -> str:
    return graph.add("Relu", graph.norm_of(maps, layers.batchnorm))


def _dense_layer(graph: Graph, layer: DenseLayer, maps: str, segments: _Segments) -> str:
    inner = graph.conv_of(_norm_relu(graph, layer.nonlinear1, maps), layer.linear1, layer.nonlinear2.batchnorm)
    return graph.add("Concat", maps, _masked(graph, layer.cam_layer, graph.add("Relu", inner), segments), axis=1)


def _masked(graph: Graph, layer: ContextMask, maps: str, segments: _Segments) -> str:
    context = graph.add("MatMul", maps, segments.averages)
    hidden = graph.add("Relu", graph.conv_of(context, layer.linear1))
    gate = graph.add("Sigmoid", graph.conv_of(hidden, layer.linear2))
    return graph.add("Mul", graph.conv_of(maps, layer.linear_local), graph.add("MatMul", gate, segments.members))


def _head(graph: Graph, head: Head, feats: str) -> str:
    maps = graph.add("Relu", graph.conv_of(graph.image_of(feats), head.conv1, head.bn1))
    for block in (*head.layer1, *head.layer2):
        maps = graph.basic_block(maps, (block.conv1, block.bn1), (block.conv2, block.bn2), block.shortcut)
    maps = graph.add("Relu", graph.conv_of(maps, head.conv2, head.bn2))
    return graph.shape(maps, 0, head.out_channels, -1)
