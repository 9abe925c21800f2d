"""ReDimNet: maps (C, F, T) are reshaped to sequences (C * F, T) and back.

C * F is the same in all stages, so the input of a stage is a learned mean of all earlier outputs. The sizes B0 and B1
are those of wespeaker. Source: Yakovlev et al., Interspeech 2024, arXiv 2407.18223.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wespeaker_lite.core.config import bounded
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.models.activations import Activations
from wespeaker_lite.models.channel_norm import ChannelNorm
from wespeaker_lite.models.masking import apply_mask, time_mask
from wespeaker_lite.models.pooling import AttentiveStatisticsPooling

_KERNELS = (7, 19, 31, 59)  # over time, in a sequence part
HEADS = 4


@dataclass(frozen=True)
class Config:
    """Hyper-parameters. The defaults are B0, which needs 60 mels.

    Attributes:
        channels: channels of the stem. The width of the sequences is this times the number of mels.
        strides: stride over frequency at the beginning of each stage.
        depth: number of two-dimensional blocks of each stage.
        expansion: factor of the channels inside the two-dimensional blocks of each stage.
        reduction: divisor of the width inside the one-dimensional part of each stage. 0: no such part.
        block: kind of the two-dimensional blocks: `residual` as in B0, or `convnext` as in B1.
        group_width: channels per group in the convolutions of the blocks. 1: depthwise.
        embed_dim: size of the embedding.
        attention_bottleneck: hidden channels of the attentive pooling.
        global_context: the attentive pooling also gets the mean and standard deviation over all frames.
    """

    channels: int = bounded(10, 1, 16_384)
    strides: tuple[int, ...] = bounded((1, 2, 1, 2, 1), 1, 1000)
    depth: tuple[int, ...] = bounded((2, 3, 3, 4, 3), 1, 1000)
    expansion: tuple[int, ...] = bounded((1, 2, 3, 2, 1), 1, 1000)
    reduction: tuple[int, ...] = bounded((30, 30, 30, 10, 10), 0, 16_384)
    block: Literal["residual", "convnext"] = "residual"
    group_width: int = bounded(1, 1, 16_384)
    embed_dim: int = bounded(192, 1, 16_384)
    attention_bottleneck: int = bounded(128, 1, 16_384)
    global_context: bool = True

    def __post_init__(self) -> None:
        lengths = {len(part) for part in (self.strides, self.depth, self.expansion, self.reduction)}
        if len(lengths) != 1 or lengths == {0}:
            raise ValueError("strides, depth, expansion and reduction name each stage, so they must be equally long")
        channels = self.channels
        for stride, expansion in zip(self.strides, self.expansion, strict=True):
            channels *= stride
            for count in {channels, channels * expansion}:
                if count % groups_of(count, self.group_width):
                    raise ValueError(f"{count} channels do not divide into groups of {self.group_width}")

    def check(self, num_mels: int) -> None:
        """Check that strides, heads and reductions divide the mels.

        Raises:
            InputError: if a stride does not divide the bands, or heads and reduction the width.
        """
        bands, width = num_mels, self.channels * num_mels
        for number, (stride, reduction) in enumerate(zip(self.strides, self.reduction, strict=True), start=1):
            if bands % stride or (reduction and width % (reduction * HEADS)):
                raise InputError(
                    f"model (redimnet): stage {number} gets {bands} bands of {num_mels} mels; stride {stride} must "
                    f"divide them, and {HEADS} heads times reduction {reduction} the width {width}: change "
                    "model.strides, model.reduction, or features.num_mels (B0 needs 60, B1 72)"
                )
            bands //= stride


def groups_of(channels: int, width: int) -> int:
    """The number of groups of `width` channels, at least 1."""
    return max(1, channels // width)


# --- Blocks ---


class ConvNext(nn.Module):
    """Grouped convolution, batch norm, GELU, 1x1 convolution, and the residual: (B, C, ..., T) -> the same."""

    def __init__(self, conv: nn.Conv1d | nn.Conv2d) -> None:
        super().__init__()
        channels, flat = conv.out_channels, isinstance(conv, nn.Conv1d)
        self.conv = conv
        self.norm = (nn.BatchNorm1d if flat else nn.BatchNorm2d)(channels)
        self.pointwise = type(conv)(channels, channels, 1)

    def forward(self, maps: Tensor, mask: Tensor | None) -> Tensor:
        return maps + self.pointwise(F.gelu(self.norm(self.conv(apply_mask(maps, mask)))))


class Residual(nn.Module):
    """Two pairs of a grouped and a 1x1 convolution, each with a norm, and the residual: (B, C, F, T) -> the same."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.conv1 = _grouped_conv(channels, groups, bias=False)
        self.pointwise1 = nn.Conv2d(channels, channels, 1)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = _grouped_conv(channels, groups, bias=False)
        self.pointwise2 = nn.Conv2d(channels, channels, 1)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, maps: Tensor, mask: Tensor | None) -> Tensor:
        inner = self.norm1(torch.relu_(self.pointwise1(self.conv1(apply_mask(maps, mask)))))
        inner = self.norm2(self.pointwise2(self.conv2(apply_mask(inner, mask))))
        return torch.relu_(inner + maps)


def _grouped_conv(channels: int, groups: int, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=bias)


class Transformer(nn.Module):
    """Self-attention and a feed-forward network, each with a residual and a norm after it: (B, C, T) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(channels, channels) for _ in range(4))
        self.attention_norm = nn.LayerNorm(channels)
        self.widen, self.narrow = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.norm = nn.LayerNorm(channels)

    def forward(self, maps: Tensor, mask: Tensor | None) -> Tensor:
        tokens = maps.transpose(1, 2)
        heads = (
            layer(tokens).unflatten(-1, (HEADS, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        keys = None if mask is None else mask[:, None, None, :]
        attended = F.scaled_dot_product_attention(*heads, attn_mask=keys)
        tokens = self.attention_norm(tokens + self.out(attended.transpose(1, 2).flatten(2)))
        return self.norm(tokens + self.narrow(F.gelu(self.widen(tokens), approximate="tanh"))).transpose(1, 2)


class SequencePart(nn.Module):
    """The one-dimensional block of a stage, with its residual: (B, W, T) -> the same, `inner` channels inside."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.narrow = nn.Sequential(nn.Conv1d(width, inner, 1), ChannelNorm(inner))
        self.convs = nn.ModuleList(
            ConvNext(nn.Conv1d(inner, inner, kernel, padding=kernel // 2, groups=inner)) for kernel in _KERNELS
        )
        self.transformer = Transformer(inner)
        self.widen = nn.Conv1d(inner, width, 1)

    def forward(self, sequence: Tensor, mask: Tensor | None) -> Tensor:
        # Padding may be infinite, which attention cannot have as a value, even with weight 0.
        inner = apply_mask(self.narrow(sequence), mask)
        for conv in self.convs:
            inner = conv(inner, mask)
        return sequence + self.widen(self.transformer(apply_mask(inner, mask), mask))


class Squeeze(nn.Sequential):
    """Reduce the channels of a stage's blocks to those of its output: (B, expansion * C, F, T) -> (B, C, F, T)."""

    def __init__(self, channels: int, expansion: int, group_width: int) -> None:
        super().__init__(
            nn.Conv2d(expansion * channels, channels, 3, padding=1, groups=groups_of(channels, group_width)),
            nn.BatchNorm2d(channels, eps=1e-6),
            nn.GELU(),
            nn.Conv2d(channels, channels, 1),
        )


class Stage(nn.Module):
    """Two-dimensional blocks, then the sequence part: a sequence (B, W, T) -> the same."""

    def __init__(self, config: Config, number: int, channels: int, width: int) -> None:
        super().__init__()
        stride, expansion, reduction = config.strides[number], config.expansion[number], config.reduction[number]
        self.in_channels, self.channels = channels, channels * stride
        inner = expansion * self.channels
        self.shrink = nn.Conv2d(channels, inner, (stride, 1), (stride, 1))
        self.blocks = nn.ModuleList(_block(config, inner) for _ in range(config.depth[number]))
        self.squeeze = Squeeze(self.channels, expansion, config.group_width) if expansion > 1 else None
        self.sequence = SequencePart(width, width // reduction) if reduction else None

    def forward(self, sequence: Tensor, mask: Tensor | None) -> Tensor:
        maps = self.shrink(as_maps(sequence, self.in_channels))
        for block in self.blocks:
            maps = block(maps, mask)
        if self.squeeze is not None:
            maps = self.squeeze(apply_mask(maps, mask))
        sequence = as_sequence(maps)
        return sequence if self.sequence is None else self.sequence(sequence, mask)


def _block(config: Config, channels: int) -> nn.Module:
    groups = groups_of(channels, config.group_width)
    return Residual(channels, groups) if config.block == "residual" else ConvNext(_grouped_conv(channels, groups))


def as_maps(sequence: Tensor, channels: int) -> Tensor:
    """(B, F * C, T), channels innermost -> (B, C, F, T)."""
    return sequence.unflatten(1, (-1, channels)).transpose(1, 2)


def as_sequence(maps: Tensor) -> Tensor:
    """(B, C, F, T) -> (B, F * C, T)."""
    return maps.transpose(1, 2).flatten(1, 2)


class LearnedMean(nn.Module):
    """A weighted mean of `count` sequences (B, W, T). The weights are learned per channel, positive, and sum to 1."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.zeros(count, width, 1))

    def forward(self, sequences: list[Tensor]) -> Tensor:
        first, *weights = self.scores.softmax(0)
        mean = first * sequences[0]
        for weight, sequence in zip(weights, sequences[1:], strict=True):
            mean = torch.addcmul(mean, weight, sequence)
        return mean


# --- Network ---


class Model(nn.Module):
    """ReDimNet: feats (B, T, num_mels), lengths (B,) or None -> embeddings (B, embed_dim)."""

    def __init__(self, config: Config, num_mels: int) -> None:
        super().__init__()
        config.check(num_mels)
        self.embed_dim = config.embed_dim
        width, channels = config.channels * num_mels, config.channels
        self.stem = nn.Sequential(nn.Conv2d(1, channels, 3, padding=1), ChannelNorm(channels))
        self.means, self.stages = nn.ModuleList(), nn.ModuleList()
        for number, stride in enumerate(config.strides):
            self.stages.append(Stage(config, number, channels, width))
            self.means.append(LearnedMean(number + 2, width))  # of all outputs so far
            channels *= stride
        self.pooling = AttentiveStatisticsPooling(width, config.attention_bottleneck, config.global_context)
        self.embedding = nn.Linear(self.pooling.out_dim, config.embed_dim)

    def forward(self, feats: Tensor, lengths: Tensor | None = None) -> Tensor:
        mask = None if lengths is None else time_mask(lengths, feats.shape[1])
        return self._embed(self._sequences(feats, mask), mask)

    def activations(self, feats: Tensor) -> Activations:
        """The embeddings, and the outputs of the stages as maps, (B, C, F, T); C * F is channels * num_mels."""
        sequences = self._sequences(feats, None)
        pairs = zip(self.stages, sequences[1:], strict=True)
        maps = [as_maps(sequence, stage.channels) for stage, sequence in pairs]
        return Activations(self._embed(sequences, None), maps)

    def _sequences(self, feats: Tensor, mask: Tensor | None) -> list[Tensor]:
        """The outputs of the stem and of each stage."""
        maps = self.stem(apply_mask(feats.transpose(1, 2).unsqueeze(1), mask))
        sequences = [as_sequence(maps)]
        for number, stage in enumerate(self.stages):
            mixed = sequences[0] if number == 0 else self.means[number - 1](sequences)
            sequences.append(stage(mixed, mask))
        return sequences

    def _embed(self, sequences: list[Tensor], mask: Tensor | None) -> Tensor:
        return self.embedding(self.pooling(self.means[-1](sequences), mask))
