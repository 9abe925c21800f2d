"""KD at label level: the student learns the teacher's distribution over the training speakers."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from wespeaker_lite.distill.logits import LogitsConfig, LogitsTerm


@dataclass(frozen=True)
class Config(LogitsConfig):
    """The options of all terms that compare logits."""


class Term(LogitsTerm):
    """T^2 * KL(teacher || student) of softened distributions, summed over classes (Hinton et al. 2015, section 2)."""

    def distance(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        return softened_kl(student_logits, teacher_logits, self.config.temperature)


def softened_kl(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, weights: Tensor | float = 1.0
) -> Tensor:
    """T^2 * KL(teacher || student) of logits (B, classes), averaged over the batch. The teacher gets no gradient.

    weights: weights of the crops, (B,). Crops of weight 0 still count in the mean.
    """
    with torch.autocast(student_logits.device.type, enabled=False):
        student_log_probs = F.log_softmax(student_logits.float() / temperature, dim=1)
        teacher_log_probs = F.log_softmax(teacher_logits.detach().float() / temperature, dim=1)
        divergences = F.kl_div(student_log_probs, teacher_log_probs, reduction="none", log_target=True).sum(1)
        return temperature**2 * (weights * divergences).mean()
