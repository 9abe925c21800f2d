"""The graph of ReDimNet."""

import numpy as np
from torch import nn

from wespeaker_lite.deploy.graphs.builder import Graph
from wespeaker_lite.deploy.graphs.pooling import pool
from wespeaker_lite.models.redimnet import (
    HEADS,
    ConvNext,
    LearnedMean,
    Model,
    Residual,
    SequencePart,
    Squeeze,
    Stage,
    Transformer,
)


def build(graph: Graph, model: Model, feats: str) -> str:
    """Feats (B, T, num_mels) -> embeddings (B, embed_dim)."""
    conv, norm = model.stem
    width = model.pooling.out_dim // 2
    maps = graph.channel_norm(graph.conv_of(graph.image_of(feats), conv), norm, planes=True)
    sequences = [_as_sequence(graph, maps, width)]
    mixed = sequences[0]
    for stage, mean in zip(model.stages, model.means, strict=True):
        sequences.append(_stage(graph, stage, mixed, width))
        mixed = _mean(graph, mean, sequences)
    return graph.linear_of(graph.add("Flatten", pool(graph, model.pooling, mixed)), model.embedding)


def _mean(graph: Graph, layer: LearnedMean, sequences: list[str]) -> str:
    weighted = [
        graph.add("Mul", sequence, weight) for weight, sequence in zip(layer.scores.softmax(0), sequences, strict=True)
    ]
    return graph.add("Sum", *weighted)


def _as_sequence(graph: Graph, maps: str, width: int) -> str:
    """(B, C, F, T) -> (B, F * C, T)."""
    return graph.shape(graph.add("Transpose", maps, perm=[0, 2, 1, 3]), 0, width, -1)


def _stage(graph: Graph, stage: Stage, sequence: str, width: int) -> str:
    maps = graph.shape(sequence, 0, width // stage.in_channels, stage.in_channels, -1)
    maps = graph.conv_of(graph.add("Transpose", maps, perm=[0, 2, 1, 3]), stage.shrink)
    for block in stage.blocks:
        maps = (_residual if isinstance(block, Residual) else _convnext)(graph, block, maps)
    if stage.squeeze is not None:
        maps = _squeeze(graph, stage.squeeze, maps)
    sequence = _as_sequence(graph, maps, width)
    return sequence if stage.sequence is None else _sequence_part(graph, stage.sequence, sequence)


def _residual(graph: Graph, block: Residual, maps: str) -> str:
    inner = graph.conv_of(graph.conv_of(maps, block.conv1), block.pointwise1)
    inner = graph.conv_of(graph.norm_of(graph.add("Relu", inner), block.norm1), block.conv2)
    return graph.add("Relu", graph.add("Add", graph.conv_of(inner, block.pointwise2, block.norm2), maps))


def _convnext(graph: Graph, block: ConvNext, maps: str) -> str:
    inner = graph.gelu(graph.conv_of(maps, block.conv, block.norm))
    return graph.add("Add", maps, graph.conv_of(inner, block.pointwise))


def _squeeze(graph: Graph, layers: Squeeze, maps: str) -> str:
    conv, norm, _, pointwise = layers
    return graph.conv_of(graph.gelu(graph.conv_of(maps, conv, norm)), pointwise)


def _sequence_part(graph: Graph, part: SequencePart, sequence: str) -> str:
    conv, norm = part.narrow
    inner = graph.channel_norm(graph.conv_of(sequence, conv), norm)
    for block in part.convs:
        inner = _convnext(graph, block, inner)
    return graph.add("Add", sequence, graph.conv_of(_transformer(graph, part.transformer, inner), part.widen))


def _transformer(graph: Graph, layer: Transformer, maps: str) -> str:
    tokens = graph.add("Transpose", maps, perm=[0, 2, 1])
    channels = layer.out.out_features
    query, key, value = (
        graph.add("Transpose", graph.shape(_linear(graph, part, tokens), 0, 0, HEADS, -1), perm=[0, 2, 1, 3])
        for part in (layer.query, layer.key, layer.value)
    )
    query = graph.add("Mul", query, np.array((channels // HEADS) ** -0.5))
    scores = graph.add("MatMul", query, graph.add("Transpose", key, perm=[0, 1, 3, 2]))
    attended = graph.add("MatMul", graph.add("Softmax", scores, axis=-1), value)
    attended = graph.shape(graph.add("Transpose", attended, perm=[0, 2, 1, 3]), 0, 0, channels)
    tokens = graph.add("Add", tokens, _linear(graph, layer.out, attended))
    tokens = graph.layer_norm(tokens, layer.attention_norm)
    inner = _linear(graph, layer.narrow, _tanh_gelu(graph, _linear(graph, layer.widen, tokens)))
    tokens = graph.layer_norm(graph.add("Add", tokens, inner), layer.norm)
    return graph.add("Transpose", tokens, perm=[0, 2, 1])


def _linear(graph: Graph, layer: nn.Linear, tokens: str) -> str:
    return graph.add("Add", graph.add("MatMul", tokens, layer.weight.T), layer.bias)


def _tanh_gelu(graph: Graph, values: str) -> str:
    """The tanh approximation of GELU: x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3))) / 2."""
    cube = graph.add("Mul", graph.add("Mul", values, values), values)
    inner = graph.add("Add", values, graph.add("Mul", cube, np.array(0.044715)))
    tanh = graph.add("Tanh", graph.add("Mul", inner, np.array((2 / np.pi) ** 0.5)))
    return graph.add("Mul", graph.add("Mul", values, np.array(0.5)), graph.add("Add", tanh, np.array(1.0)))
