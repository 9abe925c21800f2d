"""KD at label level: the student learns the teacher's distribution over the training speakers."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from wespeaker_lite.distill.outputs import Outputs
from wespeaker_lite.distill.term import Partners, TermConfig
from wespeaker_lite.distill.term import Term as Base
from wespeaker_lite.errors import InputError


@dataclass(frozen=True)
class Config(TermConfig):
    """`logits`: margin-free scaled cosines, or with the margin (as ENSKD, arXiv 2309.14838)."""

    temperature: float = 4.0
    logits: Literal["cosine", "margin"] = "cosine"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0:
            raise ValueError("expected temperature > 0")


class Term(Base):
    """T^2 * KL(teacher || student) of the softened distributions (Hinton et al. 2015, section 2).

    The KL is summed over classes and averaged over the batch. The teacher's side is detached. Where the teacher knows
    only some of the student's classes (no speed-perturbed speakers, say), distributions are over these, and a crop of
    another class adds 0.
    """

    def __init__(self, config: Config, partners: Partners) -> None:
        """Check that the teacher has a distribution over speakers.

        Raises:
            InputError: where it has no head.
        """
        super().__init__(config, partners)
        if partners.teacher.cosine_logits is None:
            raise InputError("distill: the label term needs a teacher with a head over the training speakers")

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss."""
        field = f"{self.config.logits}_logits"
        taught, teaching = getattr(student, field), getattr(teacher, field)
        share = 1.0
        if teacher.classes is not None:
            known = torch.isin(labels, teacher.classes)
            taught, teaching = taught[known][:, teacher.classes], teaching[known]
            share = known.float().mean()
            if not share:
                return {self.name: taught.sum()}
        return {self.name: share * softened_kl(taught, teaching, self.config.temperature)}


def softened_kl(taught: Tensor, teaching: Tensor, temperature: float) -> Tensor:
    """T^2 * KL(teaching || taught) of logits (B, classes), a mean over the batch; `teaching` gets no gradient."""
    # float32 whatever the autocast: differences of log-probabilities lose all their digits in bf16
    with torch.autocast(taught.device.type, enabled=False):
        log_taught = F.log_softmax(taught.float() / temperature, dim=1)
        log_teaching = F.log_softmax(teaching.detach().float() / temperature, dim=1)
        return temperature**2 * F.kl_div(log_taught, log_teaching, reduction="batchmean", log_target=True)
