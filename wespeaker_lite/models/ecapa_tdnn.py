"""ECAPA-TDNN of any width (Desplanques et al., Interspeech 2020, arXiv 2005.07143)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from wespeaker_lite.core.config import bounded
from wespeaker_lite.models.activations import Activations
from wespeaker_lite.models.masking import apply_mask, mean_over_time, time_mask
from wespeaker_lite.models.pooling import build_pooling


@dataclass(frozen=True)
class Config:
    """Hyper-parameters. The defaults are the paper's smaller model (C = 512), with 1,536 channels before pooling.

    Attributes:
        channels: channels of the three SE-Res2 blocks (C).
        embed_dim: size of the embedding.
        scale: groups of channels in a Res2 convolution.
        se_bottleneck: hidden channels of squeeze and excitation.
        mfa_channels: channels of the layer that joins the outputs of all blocks.
        pooling: attentive statistics, or mean and standard deviation without attention.
        attention_bottleneck: hidden channels of the attentive pooling.
        global_context: the attentive pooling also gets the mean and standard deviation over all frames.
        blocks_fed: the input of each block: `sum` of all earlier outputs, as in the paper, or only the `last` output,
            as in networks trained by wespeaker.
        unbiased: variances are divided by frames - 1, as in networks trained by wespeaker.
    """

    channels: int = bounded(512, 1, 16_384)
    embed_dim: int = bounded(192, 1, 16_384)
    scale: int = bounded(8, 2, 16_384)
    se_bottleneck: int = bounded(128, 1, 16_384)
    mfa_channels: int = bounded(1536, 1, 16_384)
    pooling: Literal["attentive", "statistics"] = "attentive"
    attention_bottleneck: int = bounded(128, 1, 16_384)
    global_context: bool = True
    blocks_fed: Literal["sum", "last"] = "sum"
    unbiased: bool = False

    def __post_init__(self) -> None:
        if self.channels % self.scale:
            raise ValueError(f"scale {self.scale} must divide channels {self.channels}")


class ConvReluNorm(nn.Sequential):
    """Convolution over time, ReLU, batch norm: (B, in, T) -> (B, out, T)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1, dilation: int = 1) -> None:
        padding = dilation * (kernel_size // 2)
        super().__init__(
            nn.Conv1d(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation),
            nn.ReLU(inplace=True),
            nn.BatchNorm1d(out_channels),
        )


class Res2Conv(nn.Module):
    """Dilated convolutions over channel groups. Each also gets the output for the group before it (Res2Net).

    (B, C, T) -> the same.
    """

    def __init__(self, channels: int, scale: int, dilation: int) -> None:
        super().__init__()
        width = channels // scale
        self.scale = scale
        self.convs = nn.ModuleList(ConvReluNorm(width, width, 3, dilation) for _ in range(scale - 1))

    def forward(self, maps: Tensor, mask: Tensor | None) -> Tensor:
        untouched, *groups = maps.chunk(self.scale, dim=1)
        outputs = [untouched]
        for conv, group in zip(self.convs, groups, strict=True):
            group = group if len(outputs) == 1 else group + outputs[-1]
            outputs.append(conv(apply_mask(group, mask)))
        return torch.cat(outputs, dim=1)


class SERes2Block(nn.Module):
    """Res2 block with squeeze-excitation and residual (paper, section 3.2 and figure 1): (B, C, T) -> the same."""

    def __init__(self, config: Config, dilation: int) -> None:
        super().__init__()
        channels = config.channels
        self.expand = ConvReluNorm(channels, channels)
        self.res2 = Res2Conv(channels, config.scale, dilation)
        self.merge = ConvReluNorm(channels, channels)
        self.gate = nn.Sequential(
            nn.Conv1d(channels, config.se_bottleneck, 1),
            nn.ReLU(inplace=True),
            nn.Conv1d(config.se_bottleneck, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, maps: Tensor, mask: Tensor | None) -> Tensor:
        inner = self.merge(self.res2(self.expand(maps), mask))
        return maps + inner * self.gate(mean_over_time(inner, mask))


class Model(nn.Module):
    """ECAPA-TDNN: feats (B, T, num_mels), lengths (B,) or None -> embeddings (B, embed_dim)."""

    def __init__(self, config: Config, num_mels: int) -> None:
        super().__init__()
        self.embed_dim, self.sums_outputs = config.embed_dim, config.blocks_fed == "sum"
        self.stem = ConvReluNorm(num_mels, config.channels, kernel_size=5)
        self.blocks = nn.ModuleList(SERes2Block(config, dilation) for dilation in (2, 3, 4))
        self.aggregate = nn.Conv1d(len(self.blocks) * config.channels, config.mfa_channels, 1)
        self.pooling = build_pooling(
            config.pooling, config.mfa_channels, config.attention_bottleneck, config.global_context, config.unbiased
        )
        self.norm = nn.BatchNorm1d(self.pooling.out_dim)
        self.embedding = nn.Linear(self.pooling.out_dim, config.embed_dim)

    def forward(self, feats: Tensor, lengths: Tensor | None = None) -> Tensor:
        mask = None if lengths is None else time_mask(lengths, feats.shape[1])
        return self._embed(self._block_outputs(feats, mask), mask)

    def activations(self, feats: Tensor) -> Activations:
        """The embeddings, and the outputs of the three SE-Res2 blocks, each (B, channels, T)."""
        outputs = self._block_outputs(feats, None)
        return Activations(self._embed(outputs, None), outputs)

    def _block_outputs(self, feats: Tensor, mask: Tensor | None) -> list[Tensor]:
        outputs: list[Tensor] = []
        # The input of a block is the sum of all outputs before it, including the stem's (paper, section 3.3).
        inner = self.stem(apply_mask(feats.transpose(1, 2), mask))
        for block in self.blocks:
            outputs.append(block(inner, mask))
            if len(outputs) < len(self.blocks):
                inner = inner + outputs[-1] if self.sums_outputs else outputs[-1]
        return outputs

    def _embed(self, outputs: list[Tensor], mask: Tensor | None) -> Tensor:
        pooled = self.pooling(torch.relu_(self.aggregate(torch.cat(outputs, dim=1))), mask)
        return self.embedding(self.norm(pooled))
