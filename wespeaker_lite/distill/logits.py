"""What the terms share that compare distributions over the training speakers."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from wespeaker_lite.core.config import bounded
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.distill.outputs import Outputs
from wespeaker_lite.distill.term import TEMPERATURES, Partners, Term, TermConfig


@dataclass(frozen=True)
class LogitsConfig(TermConfig):
    """What every term that compares logits can be told.

    Attributes:
        temperature: divides the logits of both sides before the softmax.
        logits: scaled cosines without margin, or with the margin (as ENSKD, arXiv 2309.14838).
    """

    temperature: float = bounded(4.0, *TEMPERATURES)
    logits: Literal["cosine", "margin"] = "cosine"


class LogitsTerm(Term):
    """A distance of the student's and the teacher's softened distributions, averaged over the batch.

    The teacher's side is detached. Where the teacher knows only some of the student's classes (no speed-perturbed
    speakers, say), distributions are over these, and a crop of another class adds 0.
    """

    def __init__(self, config: LogitsConfig, partners: Partners) -> None:
        """Check that the teacher has a distribution over speakers.

        Raises:
            InputError: where it has no head.
        """
        super().__init__(config, partners)
        if partners.teacher.cosine_logits is None:
            raise InputError(f"distill: the {self.name} term needs a teacher with a head over the training speakers")

    def loss(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        field = f"{self.config.logits}_logits"
        taught, teaching = getattr(student, field), getattr(teacher, field).detach()
        if teacher.classes is not None:
            known = torch.isin(labels, teacher.classes)
            taught = taught[:, teacher.classes]
            # Other crops stay in the batch, and are at no distance from themselves: how many there are, only the device
            # knows, and the host would have to wait for it.
            taught = torch.where(known[:, None], taught, taught.detach())
            teaching = torch.where(known[:, None], teaching, taught.detach())
            labels = (labels[:, None] == teacher.classes).int().argmax(1)
        # float32 whatever the autocast: differences of log-probabilities lose all their digits in bf16
        return self.distance(taught.float(), teaching.float(), labels)

    def distance(self, taught: Tensor, teaching: Tensor, labels: Tensor) -> Tensor:
        """The mean over the batch for logits (B, n), of which `labels` (B,) are the targets; `teaching` is detached."""
        raise NotImplementedError
