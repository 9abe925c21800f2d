"""Layer norm over the channels of a map, at each position."""

from torch import Tensor, nn


class ChannelNorm(nn.LayerNorm):
    """Normalise channels to mean 0 and variance 1, then apply gain and bias: (B, C, ...) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(maps.movedim(1, -1)).movedim(-1, 1)
