"""CAM++ (Wang et al., Interspeech 2023, arXiv 2303.00332).

Parameter names are those of the weights that its authors published, so that such a file can be loaded unchanged.
"""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wespeaker_lite.core.config import bounded
from wespeaker_lite.models.activations import Activations
from wespeaker_lite.models.masking import apply_mask, full_precision, time_mask
from wespeaker_lite.models.pooling import statistics

SEGMENT_FRAMES = 100  # in the context pooling, after the time stride: 2 s of speech
_BLOCKS = ((12, 1), (24, 2), (16, 2))  # dense layers and dilation


@dataclass(frozen=True)
class Config:
    """Hyper-parameters. The defaults fit the published weights of 6.85 M; embed_dim 512 gives the 7.18 M of the paper.

    Attributes:
        embed_dim: size of the embedding.
        channels: channels before the first dense block.
        growth: channels that each dense layer adds.
        head_channels: channels of the convolutions over frequency and time at the beginning.
    """

    embed_dim: int = bounded(192, 1, 16_384)
    channels: int = bounded(128, 1, 16_384)
    growth: int = bounded(32, 1, 16_384)
    head_channels: int = bounded(32, 1, 16_384)


def _norm_relu(channels: int) -> nn.Sequential:
    return nn.Sequential(OrderedDict(batchnorm=nn.BatchNorm1d(channels), relu=nn.ReLU(inplace=True)))


class HeadBlock(nn.Module):
    """Residual block that strides over frequency only: (B, C, F, T) -> (B, C, ceil(F/stride), T)."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, (stride, 1), padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, channels, 1, (stride, 1), bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, maps: Tensor, mask: Tensor | None) -> Tensor:
        inner = apply_mask(torch.relu_(self.bn1(self.conv1(maps))), mask)
        return apply_mask(torch.relu_(self.bn2(self.conv2(inner)) + self.shortcut(maps)), mask)


class Head(nn.Module):
    """Front-end convolution module (paper, section 2.3): feats (B, T, M) -> (B, channels * ceil(M / 8), T)."""

    def __init__(self, num_mels: int, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.layer1 = nn.ModuleList((HeadBlock(channels, 2), HeadBlock(channels, 1)))
        self.layer2 = nn.ModuleList((HeadBlock(channels, 2), HeadBlock(channels, 1)))
        self.conv2 = nn.Conv2d(channels, channels, 3, (2, 1), padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.out_channels = channels * -(-num_mels // 8)

    def forward(self, feats: Tensor, mask: Tensor | None) -> Tensor:
        maps = apply_mask(feats.transpose(1, 2).unsqueeze(1), mask)
        maps = apply_mask(torch.relu_(self.bn1(self.conv1(maps))), mask)
        for block in (*self.layer1, *self.layer2):
            maps = block(maps, mask)
        maps = apply_mask(torch.relu_(self.bn2(self.conv2(maps))), mask)
        return maps.flatten(1, 2)


class ContextMask(nn.Module):
    """Convolution with channels gated by their context (paper, section 2.2): (B, in, T) -> (B, out, T)."""

    def __init__(self, in_channels: int, out_channels: int, dilation: int) -> None:
        super().__init__()
        self.linear_local = nn.Conv1d(in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.linear1 = nn.Conv1d(in_channels, in_channels // 2, 1)
        self.linear2 = nn.Conv1d(in_channels // 2, out_channels, 1)

    def forward(self, maps: Tensor, mask: Tensor | None) -> Tensor:
        # The context is constant within a segment, so the gate is computed once per segment, not per frame.
        gate = torch.sigmoid(self.linear2(torch.relu_(self.linear1(segment_context(maps, mask)))))
        gate = gate.repeat_interleave(SEGMENT_FRAMES, dim=-1)[..., : maps.shape[-1]]
        return self.linear_local(maps) * gate


def segment_context(maps: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of each 100-frame segment plus the utterance's mean: (B, C, T), zero in the padding -> (B, C, ceil(T/100)).

    The last segment may be shorter. A segment of padding only gets the mean of the utterance.
    """
    frames = maps.shape[-1]
    starts = torch.arange(0, frames, SEGMENT_FRAMES, device=maps.device)
    window = (frames - starts).clamp(max=SEGMENT_FRAMES)

    def segment_sums(x: Tensor) -> Tensor:
        return F.avg_pool1d(full_precision(x), SEGMENT_FRAMES, SEGMENT_FRAMES, ceil_mode=True) * window

    sums = segment_sums(maps)
    counts = window[None, None] if mask is None else segment_sums(mask[:, None].to(sums.dtype)).round()
    return sums / counts.clamp(min=1) + sums.sum(dim=-1, keepdim=True) / counts.sum(dim=-1, keepdim=True)


class DenseLayer(nn.Module):
    """One layer of a D-TDNN block. Its output is appended to its input: (B, C, T) -> (B, C + growth, T)."""

    def __init__(self, in_channels: int, growth: int, dilation: int) -> None:
        super().__init__()
        bottleneck = 4 * growth
        self.nonlinear1 = _norm_relu(in_channels)
        self.linear1 = nn.Conv1d(in_channels, bottleneck, 1, bias=False)
        self.nonlinear2 = _norm_relu(bottleneck)
        self.cam_layer = ContextMask(bottleneck, growth, dilation)

    def forward(self, maps: Tensor, mask: Tensor | None) -> Tensor:
        inner = self.nonlinear2(self.linear1(self.nonlinear1(maps)))
        return torch.cat((maps, self.cam_layer(apply_mask(inner, mask), mask)), dim=1)


class Transit(nn.Module):
    """Halves the channels after a dense block: (B, C, T) -> (B, C / 2, T)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.nonlinear = _norm_relu(channels)
        self.linear = nn.Conv1d(channels, channels // 2, 1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        return self.linear(self.nonlinear(maps))


class Model(nn.Module):
    """CAM++: feats (B, T, num_mels), lengths (B,) or None -> embeddings (B, embed_dim)."""

    def __init__(self, config: Config, num_mels: int) -> None:
        super().__init__()
        self.embed_dim = config.embed_dim
        self.head = Head(num_mels, config.head_channels)
        channels = config.channels
        stem = nn.Conv1d(self.head.out_channels, channels, 5, stride=2, padding=2, bias=False)
        parts: dict[str, nn.Module] = {"tdnn": nn.Sequential(OrderedDict(linear=stem, nonlinear=_norm_relu(channels)))}
        for number, (count, dilation) in enumerate(_BLOCKS, start=1):
            layers = nn.ModuleDict()
            for index in range(1, count + 1):
                layers[f"tdnnd{index}"] = DenseLayer(channels, config.growth, dilation)
                channels += config.growth
            parts[f"block{number}"] = layers
            parts[f"transit{number}"] = Transit(channels)
            channels //= 2
        parts["out_nonlinear"] = _norm_relu(channels)
        dense = nn.Conv1d(2 * channels, config.embed_dim, 1, bias=False)
        norm = nn.BatchNorm1d(config.embed_dim, affine=False)
        parts["dense"] = nn.Sequential(OrderedDict(linear=dense, nonlinear=nn.Sequential(OrderedDict(batchnorm=norm))))
        self.xvector = nn.ModuleDict(parts)

    def forward(self, feats: Tensor, lengths: Tensor | None = None) -> Tensor:
        mask = None if lengths is None else time_mask(lengths, feats.shape[1])
        return self._embed(self._block_outputs(feats, mask)[-1], mask)

    def activations(self, feats: Tensor) -> Activations:
        """The embeddings, and the outputs of the three dense blocks, each (B, C, ceil(T / 2)), C = 256, 512, 512."""
        outputs = self._block_outputs(feats, None)
        return Activations(self._embed(outputs[-1], None), outputs)

    def _block_outputs(self, feats: Tensor, mask: Tensor | None) -> list[Tensor]:
        maps = self.xvector["tdnn"](self.head(feats, mask))
        mask = None if mask is None else mask[:, ::2]
        outputs = []
        for number in range(1, len(_BLOCKS) + 1):
            for layer in self.xvector[f"block{number}"].values():
                maps = layer(maps, mask)
            maps = self.xvector[f"transit{number}"](maps)
            outputs.append(maps)
        return outputs

    def _embed(self, maps: Tensor, mask: Tensor | None) -> Tensor:
        # Not in place: `activations` returns these maps too.
        mask = None if mask is None else mask[:, ::2]
        mean, std = statistics(self.xvector["out_nonlinear"](maps), mask, unbiased=True)
        return self.xvector["dense"](torch.cat((mean, std), dim=1)).squeeze(-1)
