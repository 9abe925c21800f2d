"""The graph of BC-CMT, on maps (B, C, F, T): every linear layer is one matrix product along the axis that it mixes.

A depthwise convolution over frequency is, with its sub-spectral norm and the residual around it, a small banded matrix
for each channel: C products (F, F) x (F, T). Convolution kernels for so few taps take several times as long.
"""

import numpy as np
import torch
from torch import Tensor

from wespeaker_lite.deploy.graphs.builder import Graph, affine_of
from wespeaker_lite.deploy.graphs.pooling import pool
from wespeaker_lite.models.bc_cmt import (
    Block,
    FeedForward,
    FrequencyPooling,
    GroupedLinear,
    MapAttention,
    Model,
    Patch,
    Stem,
    TimeAttention,
)
from wespeaker_lite.models.broadcasting import BroadcastResidual, FreqResidual, TimeBranch
from wespeaker_lite.models.pooling import DEVIATION_FLOOR


def build(graph: Graph, model: Model, feats: str) -> str:
    """Feats (B, T, num_mels) -> embeddings (B, embed_dim)."""
    maps = _stem(graph, model.stem, feats)
    for patch, stage in zip(model.patches, model.stages, strict=True):
        maps = _patch(graph, patch, maps)
        for block in stage:
            maps = _block(graph, block, maps)
    pooled = graph.add("Flatten", pool(graph, model.pooling, _frequency_pooling(graph, model.frequency_pooling, maps)))
    scale, shift = affine_of(model.norm)
    out_scale, out_shift = affine_of(model.embedding_norm)
    weight = out_scale[:, None] * model.embedding.weight
    bias = out_scale * model.embedding.bias + out_shift + weight @ shift
    return graph.add("Gemm", pooled, weight * scale, bias, transB=1)


def _stem(graph: Graph, stem: Stem, feats: str) -> str:
    image = graph.add("Unsqueeze", graph.add("Transpose", feats, perm=[0, 2, 1]), np.array([1]))
    maps = graph.gelu(graph.conv_of(image, stem.conv1, stem.norm1))
    return graph.gelu(graph.conv_of(maps, stem.conv2, stem.norm2))


def _patch(graph: Graph, patch: Patch, maps: str) -> str:
    weight, bias = patch.linear.fold()
    kernel = weight.unflatten(1, (patch.stride, -1)).transpose(1, 2)[..., None]
    return graph.conv(maps, kernel, bias, strides=[patch.stride, 1])


def _block(graph: Graph, block: Block, maps: str) -> str:
    if isinstance(block.attention, TimeAttention):
        maps = _local_and_attention(graph, block.local, block.attention, maps)
    else:
        maps = _map_attention(graph, block.attention, _local(graph, block.local, maps))
    return _feed_forward(graph, block.feed_forward, maps)


# --- Broadcasted residual learning ---


def _bands(layer: FreqResidual) -> tuple[Tensor, Tensor]:
    """The branch a of x + a, by channel: matrices (C, F, F) and shifts (C, F, 1)."""
    before, here, after, shift = (part[:, 0, 0].T for part in layer.fold())
    return torch.diag_embed(here) + torch.diag_embed(before, -1) + torch.diag_embed(after, 1), shift[..., None]


def _products(graph: Graph, maps: str, matrices: Tensor, shifts: Tensor) -> str:
    """Matrices (C, R, F) and shifts (C, R, 1) of maps (B, C, F, T), channel by channel: (B, C, R, T)."""
    channels, rows, bins = matrices.shape
    flat = graph.shape(maps, 0, channels * bins, -1)
    out = graph.conv(flat, matrices.reshape(channels * rows, bins, 1), shifts.reshape(-1), group=channels)
    return graph.shape(out, 0, channels, rows, -1)


def _local(graph: Graph, layer: BroadcastResidual, maps: str) -> str:
    residual, lift = _residual_and_lift(graph, layer, maps)
    return graph.add("Add", residual, _over_bins(graph, lift))


def _residual_and_lift(graph: Graph, layer: BroadcastResidual, maps: str) -> tuple[str, str]:
    """x + a (B, C, F, T), and f(mean_F a) (B, C, T), which is still to be added to all bins."""
    matrices, shifts = _bands(layer.freq)
    mean = _products(graph, maps, matrices.mean(1, keepdim=True), shifts.mean(1, keepdim=True))
    residual = _products(graph, maps, matrices + _identity(matrices), shifts)
    return residual, _time_branch(graph, layer.time, graph.shape(mean, 0, len(shifts), -1))


def _identity(matrices: Tensor) -> Tensor:
    return torch.eye(matrices.shape[-1], dtype=matrices.dtype)


def _over_bins(graph: Graph, lift: str) -> str:
    return graph.add("Unsqueeze", lift, np.array([2]))  # (B, C, T) -> (B, C, 1, T)


def _time_branch(graph: Graph, layer: TimeBranch, mean: str) -> str:
    *taps, bias = layer.fold()
    maps = graph.conv(mean, torch.stack(taps, 1)[:, None], bias, group=len(bias), pads=[1])
    return graph.add("Mul", maps, graph.add("Sigmoid", maps))


def _feed_forward(graph: Graph, layer: FeedForward, maps: str) -> str:
    weight, bias = layer.widen.fold()
    wide = graph.gelu(graph.conv(maps, weight[..., None, None], bias))
    residual, lift = _residual_and_lift(graph, layer.residual, wide)
    weight, bias = layer.fold()
    narrow = graph.add("Add", graph.conv(residual, weight[..., None, None], bias), maps)
    # Narrowed by itself the lift is added to a third of the channels.
    return graph.add("Add", narrow, _over_bins(graph, graph.conv(lift, weight[..., None], None)))


# --- Attention ---


def _local_and_attention(graph: Graph, local: BroadcastResidual, layer: TimeAttention, maps: str) -> str:
    """Two residual layers in one pass over the maps: what is linear in them is one matrix for each channel.

    z = M x + s + t and out = N z + r + o, where M = I + A and N = I + B; t and o, made from means of A x and B z, are
    the same in all bins. So out = [N M, N 1, 1] (x, t, o) + N s + r, and the means are products of x with two rows.
    """
    (first, first_shift), (second, second_shift) = _bands(local.freq), _bands(layer.freq)
    through_first, through_second = (matrices + _identity(first) for matrices in (first, second))
    row, ones = second.mean(1, keepdim=True), torch.ones_like(first_shift)
    rows = torch.cat((first.mean(1, keepdim=True), row @ through_first), 1)
    constants = (first_shift.mean(1, keepdim=True), row @ first_shift + second_shift.mean(1, keepdim=True))
    means = graph.split("Split", 2, _products(graph, maps, rows, torch.cat(constants, 1)), axis=2)
    channels = len(first)
    first_mean, second_mean = (graph.shape(mean, 0, channels, -1) for mean in means)
    lift = _time_branch(graph, local.time, first_mean)
    second_mean = graph.add("Add", second_mean, graph.add("Mul", lift, (row @ ones)[..., 0]))
    attended = _time_attention(graph, layer, second_mean)
    extended = graph.add("Concat", maps, _over_bins(graph, lift), _over_bins(graph, attended), axis=2)
    matrices = torch.cat((through_second @ through_first, through_second @ ones, ones), 2)
    return _products(graph, extended, matrices, through_second @ first_shift + second_shift)


def _time_attention(graph: Graph, layer: TimeAttention, mean: str) -> str:
    """Self-attention over time: (B, C, T) -> the same."""
    weight, bias = _dense(layer.query, layer.key, layer.value)
    query, key, value = graph.split("Split", 3, graph.conv(mean, weight, bias), axis=1)
    return _attend(graph, layer, query, key, value)


def _dense(*layers: GroupedLinear) -> tuple[Tensor, Tensor]:
    """Grouped products of the same maps as one: weight (sum of outs, in, 1) and bias."""
    weights = [torch.block_diag(*layer.weight.transpose(1, 2)) for layer in layers]
    return torch.cat(weights)[..., None], torch.cat([layer.bias.flatten() for layer in layers])


def _attend(graph: Graph, layer: TimeAttention | MapAttention, query: str, key: str, value: str) -> str:
    """Query (B, C, N), key and value (B, C, M) -> (B, C, N), the last product of the layer included."""
    channels = layer.out.bias.numel()
    width = channels // layer.heads
    query, key, value = (graph.shape(part, 0, layer.heads, width, -1) for part in (query, key, value))
    query = graph.add("Mul", query, np.array(width**-0.5))
    scores = graph.add("MatMul", graph.add("Transpose", query, perm=[0, 1, 3, 2]), key)
    weights = graph.add("Softmax", scores, axis=-1)
    attended = graph.add("MatMul", value, graph.add("Transpose", weights, perm=[0, 1, 3, 2]))
    return graph.conv(graph.shape(attended, 0, channels, -1), *_dense(layer.out))


def _map_attention(graph: Graph, layer: MapAttention, maps: str) -> str:
    """The conventional self-attention over frequency and time."""
    channels = layer.out.bias.numel()
    normed = graph.norm_of(maps, layer.norm)
    keys = normed if layer.reduction == 1 else _shrunk(graph, layer, normed)
    query = graph.conv(graph.shape(normed, 0, channels, -1), *_dense(layer.query))
    weight, bias = _dense(layer.key, layer.value)
    key, value = graph.split("Split", 2, graph.conv(graph.shape(keys, 0, channels, -1), weight, bias), axis=1)
    attended = graph.add("Reshape", _attend(graph, layer, query, key, value), graph.add("Shape", maps))
    return graph.add("Add", maps, attended)


def _shrunk(graph: Graph, layer: MapAttention, maps: str) -> str:
    """The map of keys and values; what is shorter than a patch fills one with zeros."""
    zero, patch = np.zeros(1, np.int64), np.array([layer.reduction])
    missing = [
        graph.add("Max", graph.add("Sub", patch, graph.size(maps, axis)), zero)  # of bins and of frames
        for axis in (2, 3)
    ]
    padded = graph.add("Pad", maps, graph.add("Concat", *[zero] * 6, *missing, axis=0))
    return graph.conv_of(padded, layer.shrink, layer.shrink_norm)


# --- Pooling ---


def _frequency_pooling(graph: Graph, layer: FrequencyPooling, maps: str) -> str:
    """Maps (B, C, F, T) -> (B, 2C, T)."""
    scores = graph.conv(maps, layer.score.weight[..., None, None], layer.score.bias)
    weights = graph.add("Softmax", scores, axis=2)
    mean = graph.sum(graph.add("Mul", weights, maps), 2)
    centred = graph.add("Sub", maps, mean)
    variance = graph.sum(graph.add("Mul", weights, graph.add("Mul", centred, centred)), 2)
    deviation = graph.add("Sqrt", graph.add("Max", variance, np.array(DEVIATION_FLOOR**2)))
    return graph.add("Squeeze", graph.add("Concat", mean, deviation, axis=1), np.array([2]))
