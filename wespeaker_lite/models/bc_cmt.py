"""BC-CMT: a broadcasting convolutional network with self-attention, in any size.

Source: Choi et al., IEEE/ACM TASLP 32 (2024) 4580-4595. Only its abstract is public, so that every detail is a
reconstruction. It is based on the abstract, on broadcasted residual learning (Kim et al. 2021, arXiv 2106.04140) and on
CMT blocks (Guo et al., CVPR 2022, arXiv 2107.06263). The size Tiny has the paper's 271.44 K parameters. It has 36.98 %
fewer MACs than the conventional Tiny (`attention: 2d`); the paper has 36.8 %.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wespeaker_lite.core.config import bounded
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.models.activations import Activations, Attention
from wespeaker_lite.models.broadcasting import (
    BroadcastResidual,
    FoldedLayer,
    Folding,
    FreqResidual,
    PointwiseNorm,
    affine_of,
    batch_norm,
)
from wespeaker_lite.models.masking import apply_mask, full_precision, time_mask
from wespeaker_lite.models.pooling import DEVIATION_FLOOR, AttentiveStatisticsPooling


@dataclass(frozen=True)
class Config:
    """Hyper-parameters. The defaults are the size Tiny.

    Attributes:
        channels: channels of each stage.
        depth: blocks of each stage.
        strides: stride over frequency before each stage.
        stem_channels: channels of the two convolutions before the first stage.
        stem_stride: stride of the first convolution over frequency and over time.
        attention: `1d`: self-attention over time. `2d`: over time and frequency, the conventional network that the
            paper compares with.
        heads: heads of the self-attention.
        scores: the scores before the softmax of the self-attention. `plain`: dot products of queries and keys, divided
            by the root of the head's width. `scaled`: these times a learned scale for each head. `cosine`: cosines
            times a learned scale, which gives sharper maps. The last two add a parameter for each head and block, and
            the paper does not have them.
        groups: groups of the 1x1 convolutions around the attention.
        reduction: with `attention: 2d`, the factor by which each stage reduces keys and values on both axes.
        ffn_ratio: hidden channels of the feed-forward network, as a multiple of the stage's channels.
        bands: sub-bands of sub-spectral normalisation.
        pool_bottleneck: hidden channels of the attentive pooling.
        embed_dim: size of the embedding.
    """

    channels: tuple[int, ...] = bounded((16, 32, 64, 64), 1, 16_384)
    depth: tuple[int, ...] = bounded((2, 2, 2, 2), 1, 1000)
    strides: tuple[int, ...] = bounded((1, 2, 2, 2), 1, 1000)
    stem_channels: int = bounded(16, 1, 16_384)
    stem_stride: tuple[int, int] = bounded((2, 2), 1, 1000)
    attention: Literal["1d", "2d"] = "1d"
    heads: int = bounded(4, 1, 16_384)
    scores: Literal["plain", "scaled", "cosine"] = "plain"
    groups: int = bounded(4, 1, 16_384)
    reduction: tuple[int, ...] = bounded((8, 4, 2, 1), 1, 1000)
    ffn_ratio: int = bounded(3, 1, 1000)
    bands: int = bounded(5, 1, 1000)
    pool_bottleneck: int = bounded(64, 1, 16_384)
    embed_dim: int = bounded(256, 1, 16_384)

    def __post_init__(self) -> None:
        stages = len(self.channels)
        if not stages or {len(self.depth), len(self.strides)} != {stages}:
            raise ValueError("channels, depth and strides name each stage, so they must be equally long")
        if self.attention == "2d" and len(self.reduction) != stages:
            raise ValueError("reduction names each stage, as channels does")
        if len(self.stem_stride) != 2:
            raise ValueError("stem_stride has two numbers, over frequency and over time")
        for channels in self.channels:
            if channels % self.heads or channels % self.groups:
                raise ValueError(f"{channels} channels do not divide into {self.heads} heads and {self.groups} groups")

    def bins(self, num_mels: int) -> list[int]:
        """Frequency bins of each stage.

        Raises:
            InputError: if a stride or the sub-bands do not divide them.
        """
        bins, result = -(-num_mels // self.stem_stride[0]), []
        for number, stride in enumerate(self.strides, start=1):
            if bins % stride or bins // stride % self.bands:
                raise InputError(
                    f"model (bc_cmt): stage {number} gets {bins} frequency bins of {num_mels} mels; stride {stride} "
                    f"and then {self.bands} bands must divide them: change model.strides, model.bands or the mels"
                )
            bins //= stride
            result.append(bins)
        return result


class Stem(nn.Module):
    """Two 3x3 convolutions with batch norm and GELU, the first with stride: feats (B, T, M) -> maps (F, B, T', C)."""

    def __init__(self, channels: int, stride: tuple[int, int]) -> None:
        super().__init__()
        self.time_stride = stride[1]
        self.conv1 = nn.Conv2d(1, channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, feats: Tensor, mask: Tensor | None) -> Tensor:
        """`mask` (B, T) is of the input. Padding in the output has arbitrary values."""
        maps = apply_mask(feats.transpose(1, 2).unsqueeze(1), mask).contiguous(memory_format=torch.channels_last)
        maps = F.gelu(self.norm1(self.conv1(maps)))
        maps = apply_mask(maps, None if mask is None else mask[:, :: self.time_stride])
        return F.gelu(self.norm2(self.conv2(maps))).permute(2, 0, 3, 1).contiguous()


class Patch(nn.Module):
    """Strided convolution over frequency, kernel equal to stride, and batch norm: (F, B, T, in) -> (F/s, B, T, out)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.linear = PointwiseNorm(stride * in_channels, out_channels)

    def forward(self, maps: Tensor) -> Tensor:
        if self.stride > 1:
            maps = maps.unflatten(0, (-1, self.stride)).permute(0, 2, 3, 1, 4).flatten(3)
        return self.linear(maps)


class GroupedLinear(nn.Module):
    """Grouped 1x1 convolution with bias: (..., in) -> (..., out)."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        bound = (in_channels // groups) ** -0.5
        shape = groups, in_channels // groups, out_channels // groups
        self.weight = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(groups, 1, out_channels // groups).uniform_(-bound, bound))

    def forward(self, maps: Tensor) -> Tensor:
        (out,) = grouped_products(maps, self.weight, self.bias)
        return out


def grouped_products(maps: Tensor, weight: Tensor, bias: Tensor, count: int = 1) -> tuple[Tensor, ...]:
    """`count` grouped 1x1 convolutions of the same maps, with concatenated weights: (..., in) -> each (..., out)."""
    groups, width, _ = weight.shape
    rows = maps.reshape(-1, groups, width).transpose(0, 1)
    out = torch.baddbmm(bias, rows, weight).unflatten(2, (count, -1))
    return out.permute(2, 1, 0, 3).reshape(count, *maps.shape[:-1], -1).unbind()


def _heads(maps: Tensor, heads: int) -> Tensor:
    """(B, N, C) -> (B, heads, N, C / heads)."""
    return maps.unflatten(-1, (heads, -1)).transpose(1, 2)


def _attend(attention: Attention, mask: Tensor | None) -> Tensor:
    """Compute attention by the fused kernel: (B, N, C). `mask` (B, keys) is true for keys that are not padding."""
    keys = None if mask is None else mask[:, None, None, :]
    out = F.scaled_dot_product_attention(attention.query, attention.key, attention.value, attn_mask=keys)
    return out.transpose(1, 2).flatten(2)


class Sharpening(nn.Module):
    """Multiply the scores of queries and keys, each (B, heads, N, width), by a learned scale for each head.

    cosine: the scores are cosines, and the scale begins at 10 (query-key normalisation: Henry et al. 2020, arXiv
    2010.04245; Liu et al., CVPR 2022, arXiv 2111.09883, section 3.3). The scale is at most 100.
    """

    def __init__(self, heads: int, cosine: bool) -> None:
        super().__init__()
        self.cosine = cosine
        self.log_scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10.0) if cosine else 0.0))

    def scale(self) -> Tensor:
        """The scale of the scores, (heads, 1, 1)."""
        return self.log_scale.clamp(max=math.log(100.0)).exp()

    def forward(self, query: Tensor, key: Tensor) -> tuple[Tensor, Tensor]:
        if self.cosine:
            # Attention divides scores by the root of the width: compensate.
            query, key = F.normalize(query, dim=-1) * query.shape[-1] ** 0.5, F.normalize(key, dim=-1)
        return query * self.scale(), key


def sharpening_of(config: Config) -> Sharpening | None:
    """The layer for `config.scores`."""
    return None if config.scores == "plain" else Sharpening(config.heads, config.scores == "cosine")


def _sharpened(layer: Sharpening | None, attention: Attention) -> Attention:
    if layer is None:
        return attention
    return Attention(*layer(attention.query, attention.key), attention.value)


class TimeAttention(FoldedLayer):
    """BC-MHSA: self-attention over time on the mean over frequency, broadcast to all bins: (F, B, T, C) -> the same.

    z = BN(x), a = SSN(DWConv_freq(z)), y = x + a + broadcast_F(attention(mean_F a)). There is no position bias, because
    lengths vary.
    """

    def __init__(self, channels: int, bins: int, config: Config) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm = nn.BatchNorm1d(channels)
        self.freq = FreqResidual(channels, bins, config.bands, self.norm)
        self.query = GroupedLinear(channels, channels, config.groups)
        self.key = GroupedLinear(channels, channels, config.groups)
        self.value = GroupedLinear(channels, channels, config.groups)
        self.out = GroupedLinear(channels, channels, config.groups)
        self.sharpening = sharpening_of(config)

    def forward(self, maps: Tensor, mask: Tensor | None) -> tuple[Tensor, Attention]:
        residual, mean = self.freq(maps)
        products = grouped_products(mean, *self.constants(), count=3)
        shown = _sharpened(self.sharpening, Attention(*(_heads(product, self.heads) for product in products)))
        return residual.add_(self.out(_attend(shown, mask))), shown

    def fold(self) -> tuple[Tensor, Tensor]:
        parts = self.query, self.key, self.value
        return torch.cat([part.weight for part in parts], 2), torch.cat([part.bias for part in parts], 2)


class MapAttention(nn.Module):
    """The conventional self-attention over frequency and time, with fewer keys and values: (F, B, T, C) -> the same.

    Guo et al. (arXiv 2107.06263), section 3.2, with grouped 1x1 convolutions. Keys and values share one reduced map.
    """

    def __init__(self, channels: int, reduction: int, config: Config) -> None:
        super().__init__()
        self.heads, self.reduction = config.heads, reduction
        self.norm = nn.BatchNorm1d(channels)
        if reduction > 1:
            self.shrink = nn.Conv2d(channels, channels, reduction, reduction, groups=channels)
            self.shrink_norm = nn.BatchNorm1d(channels)
        self.query = GroupedLinear(channels, channels, config.groups)
        self.key = GroupedLinear(channels, channels, config.groups)
        self.value = GroupedLinear(channels, channels, config.groups)
        self.out = GroupedLinear(channels, channels, config.groups)
        self.sharpening = sharpening_of(config)

    def forward(self, maps: Tensor, mask: Tensor | None) -> tuple[Tensor, Attention]:
        normed = batch_norm(self.norm, maps)
        shrunk, keys = self._shrunk(normed, mask)
        query = _heads(self.query(_tokens(normed)), self.heads)
        others = (_heads(linear(_tokens(shrunk)), self.heads) for linear in (self.key, self.value))
        shown = _sharpened(self.sharpening, Attention(query, *others))
        attended = self.out(_attend(shown, keys)).unflatten(1, (maps.shape[0], maps.shape[2]))
        return maps + attended.transpose(0, 1), shown

    def _shrunk(self, maps: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The reduced map of keys and values, and which of its tokens (B, F' * T') are not padding."""
        bins, _, frames, _ = maps.shape
        if self.reduction == 1:
            return maps, None if mask is None else mask.repeat(1, bins)
        image = apply_mask(maps.permute(1, 3, 0, 2), mask)
        # A patch counts if it has no padding. A map shorter than a patch is filled up with zeros.
        missing = [max(0, self.reduction - size) for size in (frames, bins)]
        shrunk = self.shrink(F.pad(image, (0, missing[0], 0, missing[1]))).permute(2, 0, 3, 1)
        if mask is not None:
            mask = time_mask((mask.sum(1) // self.reduction).clamp(min=1), shrunk.shape[2]).repeat(1, shrunk.shape[0])
        return batch_norm(self.shrink_norm, shrunk), mask


def _tokens(maps: Tensor) -> Tensor:
    """(F, B, T, C) -> (B, F * T, C)."""
    return maps.transpose(0, 1).flatten(1, 2)


class FeedForward(FoldedLayer):
    """BC-IRFFN: widen, GELU, broadcasted residual, narrow, and an outer residual: (F, B, T, C) -> the same."""

    def __init__(self, channels: int, bins: int, config: Config) -> None:
        super().__init__()
        width = config.ffn_ratio * channels
        self.widen = PointwiseNorm(channels, width)
        self.residual = BroadcastResidual(width, bins, config.bands)
        self.narrow = nn.Linear(width, channels, bias=False)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, maps: Tensor, mask: Tensor | None) -> Tensor:
        wide = self.residual(F.gelu(self.widen(maps)), mask)
        if self.norm.training:
            return maps + batch_norm(self.norm, self.narrow(wide))
        return F.linear(wide, *self.constants()).add_(maps)

    def fold(self) -> tuple[Tensor, Tensor]:
        scale, shift = affine_of(self.norm)
        return self.narrow.weight * scale[:, None], shift


class Block(nn.Module):
    """Local perception unit, self-attention, feed-forward network, each with a residual: (F, B, T, C) -> the same.

    The local perception unit is broadcasted residual learning, which includes the residual.
    """

    def __init__(self, channels: int, bins: int, reduction: int, config: Config) -> None:
        super().__init__()
        self.local = BroadcastResidual(channels, bins, config.bands)
        one_dimensional = config.attention == "1d"
        self.attention = (
            TimeAttention(channels, bins, config) if one_dimensional else MapAttention(channels, reduction, config)
        )
        self.feed_forward = FeedForward(channels, bins, config)

    def forward(self, maps: Tensor, mask: Tensor | None) -> tuple[Tensor, Attention]:
        maps, shown = self.attention(self.local(maps, mask), mask)
        return self.feed_forward(maps, mask), shown


class FrequencyPooling(nn.Module):
    """Attentive mean and standard deviation over frequency: (F, B, T, C) -> (B, 2C, T).

    There is a weight for each bin and channel. This is the first half of the paper's FSDASP, a reconstruction. The
    second half is attentive statistics over time.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.score = nn.Linear(channels, channels)

    def forward(self, maps: Tensor) -> Tensor:
        maps = full_precision(maps)
        weights = full_precision(self.score(maps)).softmax(0)
        mean = (weights * maps).sum(0)
        variance = (weights * (maps - mean).square()).sum(0)
        deviation = variance.clamp(min=DEVIATION_FLOOR**2).sqrt()
        return torch.cat((mean, deviation), dim=-1).transpose(1, 2)


class Model(nn.Module):
    """BC-CMT: feats (B, T, num_mels), lengths (B,) or None -> embeddings (B, embed_dim)."""

    def __init__(self, config: Config, num_mels: int) -> None:
        super().__init__()
        self.embed_dim, self.time_stride = config.embed_dim, config.stem_stride[1]
        self.stem = Stem(config.stem_channels, config.stem_stride)
        self.patches, self.stages = nn.ModuleList(), nn.ModuleList()
        channels = config.stem_channels
        for stage, bins in enumerate(config.bins(num_mels)):
            self.patches.append(Patch(channels, config.channels[stage], config.strides[stage]))
            channels = config.channels[stage]
            reduction = config.reduction[stage] if config.attention == "2d" else 1
            blocks = (Block(channels, bins, reduction, config) for _ in range(config.depth[stage]))
            self.stages.append(nn.ModuleList(blocks))
        self.frequency_pooling = FrequencyPooling(channels)
        self.pooling = AttentiveStatisticsPooling(2 * channels, config.pool_bottleneck, global_context=False)
        self.norm = nn.BatchNorm1d(self.pooling.out_dim)
        self.embedding = nn.Linear(self.pooling.out_dim, config.embed_dim)
        self.embedding_norm = nn.BatchNorm1d(config.embed_dim)
        self.folding = Folding(self)

    def forward(self, feats: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self._run(feats, lengths).embedding

    def activations(self, feats: Tensor) -> Activations:
        """The embeddings, the outputs of the stages, (B, C, F, T'), and the attention of each block."""
        return self._run(feats, None)

    def _run(self, feats: Tensor, lengths: Tensor | None) -> Activations:
        self.folding.refresh()
        mask = None if lengths is None else time_mask(lengths, feats.shape[1])
        maps = self.stem(feats, mask)
        mask = None if mask is None else mask[:, :: self.time_stride]
        outputs, attention = [], []
        for patch, stage in zip(self.patches, self.stages, strict=True):
            maps = patch(maps)
            attention.append([])
            for block in stage:
                maps, shown = block(maps, mask)
                attention[-1].append(shown)
            outputs.append(maps.permute(1, 3, 0, 2))
        pooled = self.pooling(self.frequency_pooling(maps), mask)
        embedding = self.embedding_norm(self.embedding(self.norm(pooled)))
        return Activations(embedding, outputs, attention)
