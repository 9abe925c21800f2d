"""ResNet-18 and -34 on log mel maps (He et al. 2016; sizes of Zeinali et al. 2019, arXiv 1910.12592)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from wespeaker_lite.core.config import bounded
from wespeaker_lite.models.activations import Activations
from wespeaker_lite.models.masking import apply_mask, time_mask
from wespeaker_lite.models.pooling import build_pooling

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


@dataclass(frozen=True)
class Config:
    """Hyper-parameters.

    Attributes:
        depth: number of layers.
        width: channels of the first stage. Each further stage doubles them.
        embed_dim: size of the embedding.
        pooling: attentive statistics, or mean and standard deviation without attention.
        attention_bottleneck: hidden channels of the attentive pooling.
        global_context: the attentive pooling also gets the mean and standard deviation over all frames.
        unbiased: variances are divided by frames - 1, as in networks trained by wespeaker.
    """

    depth: Literal[18, 34] = 34
    width: int = bounded(32, 1, 16_384)
    embed_dim: int = bounded(256, 1, 16_384)
    pooling: Literal["statistics", "attentive"] = "statistics"
    attention_bottleneck: int = bounded(128, 1, 16_384)
    global_context: bool = False
    unbiased: bool = False


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (B, in, F, T) -> (B, out, ceil(F/stride), ceil(T/stride))."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, maps: Tensor, mask: Tensor | None) -> Tensor:
        """`mask` (B, T) is of the input. Input and output are zero in the padding."""
        inner_mask = None if mask is None else mask[:, :: self.stride]
        inner = apply_mask(torch.relu_(self.norm1(self.conv1(maps))), inner_mask)
        inner = self.norm2(self.conv2(inner)) + self.shortcut(maps)
        return apply_mask(torch.relu_(inner), inner_mask)


class Model(nn.Module):
    """ResNet: feats (B, T, num_mels), lengths (B,) or None -> embeddings (B, embed_dim)."""

    def __init__(self, config: Config, num_mels: int) -> None:
        super().__init__()
        self.embed_dim = config.embed_dim
        self.stem = nn.Sequential(
            nn.Conv2d(1, config.width, 3, padding=1, bias=False), nn.BatchNorm2d(config.width), nn.ReLU(inplace=True)
        )
        self.stages = nn.ModuleList()
        channels = config.width
        for index, count in enumerate(_BLOCKS[config.depth]):
            stage = nn.ModuleList()
            for number in range(count):
                stride = 2 if index > 0 and number == 0 else 1
                out_channels = config.width << index
                stage.append(BasicBlock(channels, out_channels, stride))
                channels = out_channels
            self.stages.append(stage)
        bands = -(-num_mels // 8)  # halved three times, rounded up each time
        self.pooling = build_pooling(
            config.pooling, channels * bands, config.attention_bottleneck, config.global_context, config.unbiased
        )
        self.embedding = nn.Linear(self.pooling.out_dim, config.embed_dim)

    def forward(self, feats: Tensor, lengths: Tensor | None = None) -> Tensor:
        mask = None if lengths is None else time_mask(lengths, feats.shape[1])
        outputs, mask = self._stage_outputs(feats, mask)
        return self.embedding(self.pooling(outputs[-1], mask))

    def activations(self, feats: Tensor) -> Activations:
        """The embeddings, and the outputs of the four stages, (B, width * 2^i, ceil(num_mels / 2^i), ceil(T / 2^i))."""
        outputs, _ = self._stage_outputs(feats, None)
        return Activations(self.embedding(self.pooling(outputs[-1])), outputs)

    def _stage_outputs(self, feats: Tensor, mask: Tensor | None) -> tuple[list[Tensor], Tensor | None]:
        outputs = []
        maps = apply_mask(feats.transpose(1, 2).unsqueeze(1), mask)
        maps = apply_mask(self.stem(maps), mask)
        for stage in self.stages:
            for block in stage:
                maps = block(maps, mask)
                mask = None if mask is None else mask[:, :: block.stride]
            outputs.append(maps)
        return outputs, mask
