"""NeXt-TDNN: ECAPA-TDNN with ConvNeXt blocks (Heo et al., ICASSP 2024, arXiv 2312.08603)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wespeaker_lite.core.config import bounded
from wespeaker_lite.models.activations import Activations
from wespeaker_lite.models.channel_norm import ChannelNorm
from wespeaker_lite.models.masking import apply_mask, full_precision, time_mask
from wespeaker_lite.models.pooling import AttentiveStatisticsPooling

_STEM_KERNEL = 4


@dataclass(frozen=True)
class Config:
    """Hyper-parameters. The defaults are the paper's mobile size, C = 128 and B = 3.

    Attributes:
        channels: channels of all blocks (C).
        depth: number of blocks of each stage (B).
        kernels: kernel sizes of the convolutions over time, one for each group of channels.
        light: NeXt-TDNN-l. Its blocks have one depthwise convolution instead of the multi-scale convolution.
        embed_dim: size of the embedding.
    """

    channels: int = bounded(128, 1, 16_384)
    depth: tuple[int, ...] = bounded((3, 3, 3), 1, 1000)
    kernels: tuple[int, ...] = bounded((7, 65), 1, 1001)
    light: bool = False
    embed_dim: int = bounded(192, 1, 16_384)

    def __post_init__(self) -> None:
        if not self.depth or not self.kernels:
            raise ValueError("depth and kernels need at least one number")
        if self.channels % len(self.kernels):
            raise ValueError(f"{self.channels} channels do not divide into {len(self.kernels)} groups, one per kernel")
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise ValueError("kernels must be odd")
        if self.light and len(self.kernels) > 1:
            raise ValueError("with light: true there is one kernel")


class TimeConv(nn.Module):
    """Depthwise convolutions over time, with one kernel size for each group of channels: (B, C, T) -> the same."""

    def __init__(self, channels: int, kernels: tuple[int, ...]) -> None:
        super().__init__()
        width = channels // len(kernels)
        self.convs = nn.ModuleList(
            nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width) for kernel in kernels
        )

    def forward(self, maps: Tensor, mask: Tensor | None) -> Tensor:
        groups = apply_mask(maps, mask).chunk(len(self.convs), dim=1)
        return torch.cat([conv(group) for conv, group in zip(self.convs, groups, strict=True)], dim=1)


class MultiScale(nn.Module):
    """The multi-scale convolution (paper, section 2.2), with 1x1 convolutions around it: (B, C, T) -> the same."""

    def __init__(self, channels: int, kernels: tuple[int, ...]) -> None:
        super().__init__()
        self.before = nn.Conv1d(channels, channels, 1)
        self.conv = TimeConv(channels, kernels)
        self.after = nn.Conv1d(channels, channels, 1)

    def forward(self, maps: Tensor, mask: Tensor | None) -> Tensor:
        return self.after(F.gelu(self.conv(self.before(maps), mask)))


class ResponseNorm(nn.Module):
    """Global response normalisation: x + bias + gain * x * N(x): (B, C, T) -> the same.

    N is the L2 norm over time of a channel, divided by its mean over channels. Source: Woo et al., CVPR 2023 (ConvNeXt
    V2, arXiv 2301.00808), section 3.2.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(channels, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1))

    def forward(self, maps: Tensor, mask: Tensor | None) -> Tensor:
        norms = torch.linalg.vector_norm(full_precision(apply_mask(maps, mask)), dim=-1, keepdim=True)
        response = norms / (norms.mean(dim=1, keepdim=True) + 1e-6)
        return torch.addcmul(self.bias, maps, self.gain * response + 1)


class FeedForward(nn.Module):
    """Norm, widen, GELU, global response norm, narrow: (B, C, T) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.widen = nn.Conv1d(channels, 4 * channels, 1)
        self.response = ResponseNorm(4 * channels)
        self.narrow = nn.Conv1d(4 * channels, channels, 1)

    def forward(self, maps: Tensor, mask: Tensor | None) -> Tensor:
        return self.narrow(self.response(F.gelu(self.widen(self.norm(maps))), mask))


class Block(nn.Module):
    """TS-ConvNeXt (paper, section 2.2): convolution over time, then a feed-forward network, both residual."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.over_time = (TimeConv if config.light else MultiScale)(config.channels, config.kernels)
        self.feed_forward = FeedForward(config.channels)

    def forward(self, maps: Tensor, mask: Tensor | None) -> Tensor:
        maps = maps + self.over_time(maps, mask)
        return maps + self.feed_forward(maps, mask)


class Model(nn.Module):
    """NeXt-TDNN: feats (B, T, num_mels), lengths (B,) or None -> embeddings (B, embed_dim).

    The stem is padded by one frame before and two after, unlike the paper's, whose output has three frames less. So an
    utterance may have a single frame, and maps are as long as the features. The attention of the pooling has no batch
    norm, unlike the authors' code.
    """

    def __init__(self, config: Config, num_mels: int) -> None:
        super().__init__()
        self.embed_dim = config.embed_dim
        self.stem = nn.Sequential(
            nn.ConstantPad1d(((_STEM_KERNEL - 1) // 2, _STEM_KERNEL // 2), 0.0),
            nn.Conv1d(num_mels, config.channels, _STEM_KERNEL),
            ChannelNorm(config.channels),
        )
        self.stages = nn.ModuleList(nn.ModuleList(Block(config) for _ in range(count)) for count in config.depth)
        dim = len(config.depth) * config.channels
        self.aggregate = nn.Sequential(nn.Conv1d(dim, dim, 1), ChannelNorm(dim))
        self.pooling = AttentiveStatisticsPooling(dim, max(1, dim // 8), global_context=False)
        self.norm = nn.BatchNorm1d(self.pooling.out_dim)
        self.embedding = nn.Linear(self.pooling.out_dim, config.embed_dim)
        self.embedding_norm = nn.BatchNorm1d(config.embed_dim)
        for layer in (*self.stem.modules(), *self.stages.modules()):
            if isinstance(layer, nn.Conv1d):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)

    def forward(self, feats: Tensor, lengths: Tensor | None = None) -> Tensor:
        mask = None if lengths is None else time_mask(lengths, feats.shape[1])
        return self._embed(self._stage_outputs(feats, mask), mask)

    def activations(self, feats: Tensor) -> Activations:
        """The embeddings, and the outputs of the stages, each (B, channels, T)."""
        outputs = self._stage_outputs(feats, None)
        return Activations(self._embed(outputs, None), outputs)

    def _stage_outputs(self, feats: Tensor, mask: Tensor | None) -> list[Tensor]:
        outputs = []
        maps = self.stem(apply_mask(feats.transpose(1, 2), mask))
        for stage in self.stages:
            for block in stage:
                maps = block(maps, mask)
            outputs.append(maps)
        return outputs

    def _embed(self, outputs: list[Tensor], mask: Tensor | None) -> Tensor:
        pooled = self.pooling(self.aggregate(torch.cat(outputs, dim=1)), mask)
        return self.embedding_norm(self.embedding(self.norm(pooled)))
