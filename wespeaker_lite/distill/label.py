"""KD at label level: the student learns the teacher's distribution over the training speakers."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wespeaker_lite.distill.outputs import Outputs
from wespeaker_lite.errors import InputError


@dataclass(frozen=True)
class Config:
    """`logits`: margin-free scaled cosines, or with the margin (as ENSKD, arXiv 2309.14838)."""

    weight: float = 1.0
    ramp_epochs: float = 0.0
    temperature: float = 4.0
    logits: Literal["cosine", "margin"] = "cosine"

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError("expected temperature > 0")


class Term(nn.Module):
    """T^2 * KL(teacher || student) of the softened distributions (Hinton et al. 2015, section 2).

    The KL is summed over classes and averaged over the batch. The teacher's side is detached.
    """

    def __init__(self, config: Config, student_dim: int, teacher_dim: int) -> None:
        super().__init__()
        self.config = config

    def forward(self, student: Outputs, teacher: Outputs) -> Tensor:
        """Return the loss, a scalar.

        Raises:
            InputError: where the teacher has no head, so no distribution over speakers.
        """
        field = f"{self.config.logits}_logits"
        taught, teaching = getattr(student, field), getattr(teacher, field)
        if teaching is None:
            raise InputError("distill: the label term needs a teacher with a head over the training speakers")
        temperature = self.config.temperature
        # float32 whatever the autocast: differences of log-probabilities lose all their digits in bf16
        with torch.autocast(taught.device.type, enabled=False):
            log_student = F.log_softmax(taught.float() / temperature, dim=1)
            log_teacher = F.log_softmax(teaching.detach().float() / temperature, dim=1)
            return temperature**2 * F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True)
