"""The x-vector TDNN (Snyder et al., ICASSP 2018). It is padded, so that utterances can have any length."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from wespeaker_lite.core.config import bounded
from wespeaker_lite.models.activations import Activations
from wespeaker_lite.models.masking import apply_mask, time_mask
from wespeaker_lite.models.pooling import build_pooling

_CONTEXTS = ((5, 1), (3, 2), (3, 3), (1, 1))  # kernel and dilation of the first four layers (paper, table 1)


@dataclass(frozen=True)
class Config:
    """Hyper-parameters. The defaults are the paper's.

    Attributes:
        channels: channels of the first four layers.
        pooling_channels: channels of the fifth layer, which is pooled.
        embed_dim: size of the embedding.
        pooling: mean and standard deviation, or attentive statistics.
        attention_bottleneck: hidden channels of the attentive pooling.
        global_context: the attentive pooling also gets the mean and standard deviation over all frames.
    """

    channels: int = bounded(512, 1, 16_384)
    pooling_channels: int = bounded(1500, 1, 16_384)
    embed_dim: int = bounded(512, 1, 16_384)
    pooling: Literal["statistics", "attentive"] = "statistics"
    attention_bottleneck: int = bounded(128, 1, 16_384)
    global_context: bool = False


class ConvReluNorm(nn.Sequential):
    """Convolution over time, ReLU, batch norm without gain: (B, in, T) -> (B, out, T)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1, dilation: int = 1) -> None:
        padding = dilation * (kernel_size // 2)
        super().__init__(
            nn.Conv1d(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation),
            nn.ReLU(inplace=True),
            nn.BatchNorm1d(out_channels, affine=False),  # as in Kaldi
        )


class Model(nn.Module):
    """x-vector: feats (B, T, num_mels), lengths (B,) or None -> embeddings (B, embed_dim) from the sixth layer."""

    def __init__(self, config: Config, num_mels: int) -> None:
        super().__init__()
        self.embed_dim = config.embed_dim
        self.layers = nn.ModuleList()
        channels = num_mels
        for kernel_size, dilation in _CONTEXTS:
            self.layers.append(ConvReluNorm(channels, config.channels, kernel_size, dilation))
            channels = config.channels
        self.widen = ConvReluNorm(channels, config.pooling_channels)
        self.pooling = build_pooling(
            config.pooling, config.pooling_channels, config.attention_bottleneck, config.global_context
        )
        self.embedding = nn.Linear(self.pooling.out_dim, config.embed_dim)

    def forward(self, feats: Tensor, lengths: Tensor | None = None) -> Tensor:
        mask = None if lengths is None else time_mask(lengths, feats.shape[1])
        return self._embed(self._layer_outputs(feats, mask)[-1], mask)

    def activations(self, feats: Tensor) -> Activations:
        """The embeddings, and the outputs of the first four layers, each (B, channels, T)."""
        outputs = self._layer_outputs(feats, None)
        return Activations(self._embed(outputs[-1], None), outputs)

    def _layer_outputs(self, feats: Tensor, mask: Tensor | None) -> list[Tensor]:
        outputs, maps = [], feats.transpose(1, 2)
        for layer in self.layers:
            maps = layer(apply_mask(maps, mask))
            outputs.append(maps)
        return outputs

    def _embed(self, maps: Tensor, mask: Tensor | None) -> Tensor:
        return self.embedding(self.pooling(self.widen(maps), mask))
