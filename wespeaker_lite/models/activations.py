"""What a network shows of its inside: KD terms look at it in training; what is deployed never makes it."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Attention:
    """One self-attention over time: query, key and value, each (B, heads, T', width of a head)."""

    query: Tensor
    key: Tensor
    value: Tensor

    def scores(self) -> Tensor:
        """The scaled products whose softmax over the last axis is the attention map: (B, heads, T', T')."""
        return (self.query * self.query.shape[-1] ** -0.5) @ self.key.transpose(-1, -2)


@dataclass
class Activations:
    """An embedding (B, D), and what led to it.

    maps: shallow to deep, each (B, C, T) or (B, C, F, T). attention: that of each block, by stage; empty where a
    network has none.
    """

    embedding: Tensor
    maps: list[Tensor] = field(default_factory=list)
    attention: list[list[Attention]] = field(default_factory=list)
