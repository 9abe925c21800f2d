"""Several pretrained teachers: a KD term for each, combined into one loss."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wespeaker_lite.distill.outputs import Outputs


class Teachers(nn.ModuleList):
    """Teachers of the same batch. Their outputs are a list."""

    def forward(self, feats: Tensor, labels: Tensor, indices: Tensor, inside: bool = False) -> list[Outputs]:
        return [teacher(feats, labels, indices, inside) for teacher in self]


class Several(nn.Module):
    """A term with one loss, built for each teacher, so that each has its own adaptors and projections.

    combine: `mean` of the losses, weighted by `weights` (none: equal weights), or `best`: the lowest loss for each
    batch. With `best`, a batch trains only the adaptor of that teacher.
    """

    def __init__(
        self, terms: Sequence[nn.Module], combine: Literal["mean", "best"] = "mean", weights: Sequence[float] = ()
    ) -> None:
        super().__init__()
        self.each = nn.ModuleList(terms)
        self.name, self.looks_inside, self.combine = terms[0].name, terms[0].looks_inside, combine
        self.learning_rate = terms[0].learning_rate
        shares = torch.tensor(list(weights) or [1.0] * len(terms))
        self.register_buffer("shares", shares / shares.sum(), persistent=False)

    def forward(self, student: Outputs, teachers: Sequence[Outputs], labels: Tensor) -> dict[str, Tensor]:
        pairs = zip(self.each, teachers, strict=True)
        losses = torch.stack([term(student, teacher, labels)[self.name] for term, teacher in pairs])
        return {self.name: losses.min() if self.combine == "best" else (self.shares * losses).sum()}

    def weights(self, epoch: float) -> Mapping[str, Any]:
        """The weights of the term."""
        return self.each[0].weights(epoch)
