"""The graph of BC-CMT, on maps (B, C, F, T). Every linear layer is one matrix product along the axis that it mixes.

A depthwise convolution over frequency, its sub-spectral norm and the residual around it are one small banded matrix for
each channel: C products (F, F) x (F, T). Convolution kernels with so few taps take several times as long.

A lift (B, C, T) is a value that a layer adds to all frequency bins. It is passed from layer to layer beside the maps,
and added in the next product that reads the maps, since a separate pass over the maps takes as long as some products.
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
    maps, lift = _stem(graph, model.stem, feats), None
    for patch, stage in zip(model.patches, model.stages, strict=True):
        maps, lift = _patch(graph, patch, maps, lift)
        for block in stage:
            maps, lift = _block(graph, block, maps, lift)
    maps = _lifted(graph, maps, lift)
    pooled = graph.add("Flatten", pool(graph, model.pooling, _frequency_pooling(graph, model.frequency_pooling, maps)))
    scale, shift = affine_of(model.norm)
    out_scale, out_shift = affine_of(model.embedding_norm)
    weight = out_scale[:, None] * model.embedding.weight
    bias = out_scale * model.embedding.bias + out_shift + weight @ shift
    return graph.add("Gemm", pooled, weight * scale, bias, transB=1)


def _stem(graph: Graph, stem: Stem, feats: str) -> str:
    maps = graph.gelu(graph.conv_of(graph.image_of(feats), stem.conv1, stem.norm1))
    return graph.gelu(graph.conv_of(maps, stem.conv2, stem.norm2))


def _patch(graph: Graph, patch: Patch, maps: str, lift: str | None) -> tuple[str, str | None]:
    weight, bias = patch.linear.fold()
    kernel = weight.unflatten(1, (patch.stride, -1)).transpose(1, 2)[..., None]
    lift = None if lift is None else graph.conv(lift, kernel.sum(2), None)
    return graph.conv(maps, kernel, bias, strides=[patch.stride, 1]), lift


def _block(graph: Graph, block: Block, maps: str, lift: str | None) -> tuple[str, str]:
    if isinstance(block.attention, TimeAttention):
        maps = _local_and_attention(graph, block.local, block.attention, maps, lift)
    else:
        maps = _lifted(graph, *_broadcast_residual(graph, block.local, _lifted(graph, maps, lift)))
        maps = _map_attention(graph, block.attention, maps)
    return _feed_forward(graph, block.feed_forward, maps)


def _lifted(graph: Graph, maps: str, lift: str | None) -> str:
    return maps if lift is None else graph.add("Add", maps, _over_bins(graph, lift))


def _over_bins(graph: Graph, lift: str) -> str:
    return graph.add("Unsqueeze", lift, np.array([2]))  # (B, C, T) -> (B, C, 1, T)


# --- Broadcasted residual learning ---


def _bands(layer: FreqResidual) -> tuple[Tensor, Tensor]:
    """The branch a of x + a for each channel, as matrices (C, F, F) and shifts (C, F, 1)."""
    before, here, after, shift = (part[:, 0, 0].T for part in layer.fold())
    return torch.diag_embed(here) + torch.diag_embed(before, -1) + torch.diag_embed(after, 1), shift[..., None]


def _products(graph: Graph, maps: str, matrices: Tensor, shifts: Tensor) -> str:
    """Apply matrices (C, R, F) and shifts (C, R, 1) to each channel of maps (B, C, F, T): (B, C, R, T)."""
    channels, rows, bins = matrices.shape
    flat = graph.shape(maps, 0, channels * bins, -1)
    out = graph.conv(flat, matrices.reshape(channels * rows, bins, 1), shifts.reshape(-1), group=channels)
    return graph.shape(out, 0, channels, rows, -1)


def _broadcast_residual(graph: Graph, layer: BroadcastResidual, maps: str) -> tuple[str, str]:
    """x + a (B, C, F, T), and the lift f(mean_F a) (B, C, T)."""
    matrices, shifts = _bands(layer.freq)
    mean = _products(graph, maps, matrices.mean(1, keepdim=True), shifts.mean(1, keepdim=True))
    residual = _products(graph, maps, matrices + _identity(matrices), shifts)
    return residual, _time_branch(graph, layer.time, graph.shape(mean, 0, len(shifts), -1))


def _identity(matrices: Tensor) -> Tensor:
    return torch.eye(matrices.shape[-1], dtype=matrices.dtype)


def _time_branch(graph: Graph, layer: TimeBranch, mean: str) -> str:
    *taps, bias = layer.fold()
    maps = graph.conv(mean, torch.stack(taps, 1)[:, None], bias, group=len(bias), pads=[1])
    return graph.add("Mul", maps, graph.add("Sigmoid", maps))


def _feed_forward(graph: Graph, layer: FeedForward, maps: str) -> tuple[str, str]:
    """The new maps and their lift."""
    weight, bias = layer.widen.fold()
    wide = graph.gelu(graph.conv(maps, weight[..., None, None], bias))
    residual, lift = _broadcast_residual(graph, layer.residual, wide)
    weight, bias = layer.fold()
    narrow = graph.add("Add", graph.conv(residual, weight[..., None, None], bias), maps)
    return narrow, graph.conv(lift, weight[..., None], None)


# --- Attention ---


def _local_and_attention(
    graph: Graph, local: BroadcastResidual, layer: TimeAttention, maps: str, lift: str | None
) -> str:
    """Two residual layers in one pass over the maps. Their linear parts are one matrix for each channel.

    z = M (x + l) + s + t and out = N z + r + o, where M = I + A and N = I + B. The lifts are the same in all bins: l is
    that of x, t is computed from the mean of A (x + l), and o from the mean of B z. Therefore
    out = [N M, N M 1, N 1, 1] (x, l, t, o) + N s + r. The means are products of (x, l) with two rows.
    """
    (first, first_shift), (second, second_shift) = _bands(local.freq), _bands(layer.freq)
    through_first, through_second = (matrices + _identity(first) for matrices in (first, second))
    row, ones = second.mean(1, keepdim=True), torch.ones_like(first_shift)
    rows = torch.cat((first.mean(1, keepdim=True), row @ through_first), 1)
    constants = (first_shift.mean(1, keepdim=True), row @ first_shift + second_shift.mean(1, keepdim=True))
    means = _products(graph, maps, rows, torch.cat(constants, 1))
    parts, matrices = [maps], [through_second @ through_first]
    if lift is not None:
        parts.append(_over_bins(graph, lift))
        matrices.append(matrices[0] @ ones)
        means = graph.add("Add", means, graph.add("Mul", parts[-1], rows @ ones))
    first_mean, second_mean = (graph.add("Gather", means, np.array(number), axis=2) for number in (0, 1))
    of_time = _time_branch(graph, local.time, first_mean)
    second_mean = graph.add("Add", second_mean, graph.add("Mul", of_time, (row @ ones)[..., 0]))
    parts += [_over_bins(graph, part) for part in (of_time, _time_attention(graph, layer, second_mean))]
    matrices += [through_second @ ones, ones]
    extended = graph.add("Concat", *parts, axis=2)
    return _products(graph, extended, torch.cat(matrices, 2), through_second @ first_shift + second_shift)


def _time_attention(graph: Graph, layer: TimeAttention, mean: str) -> str:
    """Self-attention over time: (B, C, T) -> the same."""
    products = graph.conv(mean, *_dense(layer.query, layer.key, layer.value))
    return _attend(graph, layer, *graph.split("Split", 3, _by_heads(graph, layer, products, 3), axis=1))


def _dense(*layers: GroupedLinear) -> tuple[Tensor, Tensor]:
    """Combine grouped products of the same maps into one: weight (sum of outputs, inputs, 1) and bias."""
    weights = [torch.block_diag(*layer.weight.transpose(1, 2)) for layer in layers]
    return torch.cat(weights)[..., None], torch.cat([layer.bias.flatten() for layer in layers])


def _attend(graph: Graph, layer: TimeAttention | MapAttention, query: str, key: str, value: str) -> str:
    """Attention and output layer: query (B, heads, width, N), key and value (B, heads, width, M) -> (B, C, N)."""
    channels = layer.out.bias.numel()
    factor = np.array((channels // layer.heads) ** -0.5)
    if layer.sharpening is not None:
        factor = layer.sharpening.scale()
        if layer.sharpening.cosine:
            query, key = _unit(graph, query), _unit(graph, key)
        else:
            factor = factor * (channels // layer.heads) ** -0.5
    query = graph.add("Mul", query, factor)
    scores = graph.add("MatMul", graph.add("Transpose", query, perm=[0, 1, 3, 2]), key)
    weights = graph.add("Softmax", scores, axis=-1)
    # The right factor has few columns, so the large matrix of weights is read only once, in memory order.
    attended = graph.add("MatMul", weights, graph.add("Transpose", value, perm=[0, 1, 3, 2]))
    attended = graph.add("Transpose", attended, perm=[0, 1, 3, 2])
    return graph.conv(graph.shape(attended, 0, channels, -1), *_dense(layer.out))


def _unit(graph: Graph, vectors: str) -> str:
    """Normalise vectors along axis 2 to length 1, as F.normalize does."""
    lengths = graph.add("ReduceL2", vectors, axes=[2], keepdims=1)
    return graph.add("Div", vectors, graph.add("Max", lengths, np.array(1e-12)))


def _by_heads(graph: Graph, layer: TimeAttention | MapAttention, maps: str, count: int) -> str:
    """(B, count * C, N) -> (B, count * heads, width, N)."""
    return graph.shape(maps, 0, count * layer.heads, layer.out.bias.numel() // layer.heads, -1)


def _map_attention(graph: Graph, layer: MapAttention, maps: str) -> str:
    """Conventional self-attention over frequency and time."""
    channels = layer.out.bias.numel()
    normed = graph.norm_of(maps, layer.norm)
    keys = normed if layer.reduction == 1 else _shrunk(graph, layer, normed)
    query = graph.conv(graph.shape(normed, 0, channels, -1), *_dense(layer.query))
    products = graph.conv(graph.shape(keys, 0, channels, -1), *_dense(layer.key, layer.value))
    parts = graph.split("Split", 2, _by_heads(graph, layer, products, 2), axis=1)
    attended = _attend(graph, layer, _by_heads(graph, layer, query, 1), *parts)
    attended = graph.add("Reshape", attended, graph.add("Shape", maps))
    return graph.add("Add", maps, attended)


def _shrunk(graph: Graph, layer: MapAttention, maps: str) -> str:
    """The map for keys and values. A map shorter than a patch is padded with zeros."""
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
    largest = graph.add("ReduceMax", scores, axes=[2], keepdims=1)
    weights = graph.add("Exp", graph.add("Sub", scores, largest))
    weights = graph.add("Div", weights, graph.sum(weights, 2))
    mean = graph.sum(graph.add("Mul", weights, maps), 2)
    centred = graph.add("Sub", maps, mean)
    variance = graph.sum(graph.add("Mul", weights, graph.add("Mul", centred, centred)), 2)
    deviation = graph.add("Sqrt", graph.add("Max", variance, np.array(DEVIATION_FLOOR**2)))
    return graph.add("Squeeze", graph.add("Concat", mean, deviation, axis=1), np.array([2]))
