"""Several pretrained teachers at once: a KD term for each of them, and one loss of all."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from wespeaker_lite.distill.outputs import Outputs


class Teachers(nn.ModuleList):
    """Teachers that all see the same batch; their outputs come as a list."""

    def forward(self, feats: Tensor, labels: Tensor, indices: Tensor, inside: bool = False) -> list[Outputs]:
        return [teacher(feats, labels, indices, inside) for teacher in self]


class Several(nn.Module):
    """A term with one loss, built for each teacher: adaptors and projections are each teacher's own.

    combine: `mean` of the losses by the teachers' weights (none: alike); `best`, of each batch the lowest loss, that of
    the teacher that the student is nearest to. With `best` only that teacher's adaptor is trained by a batch.
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
        """As of the term that is built for each."""
        return self.each[0].weights(epoch)
