"""Internal activations of a network, for KD terms. A deployed network does not compute them."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class Attention:
    """A self-attention over time: query, key and value, each (B, heads, T', width of a head)."""

    query: Tensor
    key: Tensor
    value: Tensor

    def scores(self) -> Tensor:
        """The scaled dot products: (B, heads, T', T'). Their softmax over the last axis is the attention map."""
        return (self.query * self.query.shape[-1] ** -0.5) @ self.key.transpose(-1, -2)


@dataclass
class Activations:
    """An embedding (B, D) with internal activations.

    maps: from shallow to deep, each (B, C, T) or (B, C, F, T). attention: of each block, by stage; empty for networks
    without self-attention.
    """

    embedding: Tensor
    maps: list[Tensor] = field(default_factory=list)
    attention: list[list[Attention]] = field(default_factory=list)
