"""Graphs of pooling over time."""

import numpy as np

from wespeaker_lite.deploy.graphs.builder import Graph
from wespeaker_lite.models.pooling import DEVIATION_FLOOR, AttentiveStatisticsPooling, StatisticsPooling


def pool(graph: Graph, pooling: StatisticsPooling | AttentiveStatisticsPooling, maps: str) -> str:
    """Maps (B, D, T) -> (B, 2D, 1)."""
    if isinstance(pooling, StatisticsPooling):
        return statistics(graph, maps, pooling.unbiased)
    return _attentive(graph, pooling, maps)


def statistics(graph: Graph, maps: str, unbiased: bool = False) -> str:
    """Mean and standard deviation over time: (B, D, T) -> (B, 2D, 1). `unbiased` divides by T - 1."""
    mean = graph.mean(maps, -1)
    return graph.add("Concat", mean, _deviation(graph, graph.add("Sub", maps, mean), unbiased), axis=1)


def _deviation(graph: Graph, centred: str, unbiased: bool = False) -> str:
    squares = graph.add("Mul", centred, centred)
    variance = graph.mean(squares, -1)
    if unbiased:
        frames = graph.add("Cast", graph.size(centred, 2), to=1)
        fewer = graph.add("Max", graph.add("Sub", frames, np.array([1.0])), np.array([1.0]))
        variance = graph.add("Mul", variance, graph.add("Div", frames, fewer))
    return _root(graph, variance)


def _root(graph: Graph, variance: str) -> str:
    return graph.add("Sqrt", graph.add("Max", variance, np.array(DEVIATION_FLOOR**2)))


def _attentive(graph: Graph, pooling: AttentiveStatisticsPooling, maps: str) -> str:
    dim = pooling.out_dim // 2
    mean = graph.mean(maps, -1)
    centred = graph.add("Sub", maps, mean)
    weight, bias = pooling.hidden.weight, pooling.hidden.bias
    if pooling.global_context:
        context = graph.add("Concat", mean, _deviation(graph, centred, pooling.unbiased), axis=1)
        shared = graph.conv(context, weight[:, dim:], bias)
        hidden = graph.add("Add", graph.conv(maps, weight[:, :dim], None), shared)
    else:
        hidden = graph.conv(maps, weight, bias)
    scores = graph.conv_of(graph.add("Tanh", hidden), pooling.score)
    weighted = graph.add("Mul", graph.add("Softmax", scores, axis=-1), centred)
    offset = graph.sum(weighted, -1)
    squares = graph.sum(graph.add("Mul", weighted, centred), -1)
    variance = graph.add("Sub", squares, graph.add("Mul", offset, offset))
    return graph.add("Concat", graph.add("Add", mean, offset), _root(graph, variance), axis=1)
