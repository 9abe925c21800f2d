"""Base of the terms that compare distributions over the training speakers."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from wespeaker_lite.core.config import bounded
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.labels import UNLABELLED
from wespeaker_lite.distill.outputs import Outputs
from wespeaker_lite.distill.term import TEMPERATURES, Partners, Term, TermConfig


@dataclass(frozen=True)
class LogitsConfig(TermConfig):
    """The options of all terms that compare logits.

    Attributes:
        temperature: divides the logits of both sides before the softmax.
        logits: scaled cosines without margin, or with the margin (as in ENSKD, arXiv 2309.14838).
    """

    temperature: float = bounded(4.0, *TEMPERATURES)
    logits: Literal["cosine", "margin"] = "cosine"


class LogitsTerm(Term):
    """A distance of the student's and the teacher's softened distributions, averaged over the batch.

    The teacher's side is detached. If the teacher has only some of the student's classes, for example no
    speed-perturbed speakers, distributions are over these, and the loss of crops of other classes is 0.
    Unlabelled crops (label -1) are compared like all others.
    """

    def __init__(self, config: LogitsConfig, partners: Partners) -> None:
        """Check that the teacher has a head.

        Raises:
            InputError: if it has none.
        """
        super().__init__(config, partners)
        if partners.teacher.cosine_logits is None:
            raise InputError(f"distill: the {self.name} term needs a teacher with a head over the training speakers")

    def loss(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        field = f"{self.config.logits}_logits"
        student_logits, teacher_logits = getattr(student, field), getattr(teacher, field).detach()
        if teacher.classes is not None:
            unlabelled = labels == UNLABELLED
            known = torch.isin(labels, teacher.classes) | unlabelled
            student_logits = student_logits[:, teacher.classes]
            # Crops of other classes are compared with themselves, which gives 0. Removing them from the batch would
            # make the host wait for their number.
            student_logits = torch.where(known[:, None], student_logits, student_logits.detach())
            teacher_logits = torch.where(known[:, None], teacher_logits, student_logits.detach())
            labels = torch.where(unlabelled, labels, (labels[:, None] == teacher.classes).int().argmax(1))
        # always float32: bf16 is too coarse for differences of log-probabilities
        return self.distance(student_logits.float(), teacher_logits.float(), labels)

    def distance(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """The mean distance over the batch of logits (B, n) with labels (B,), -1 for unlabelled crops.

        `teacher_logits` are detached.
        """
        raise NotImplementedError
