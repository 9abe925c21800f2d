"""KD at label level: the student learns the teacher's distribution over the training speakers."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from wespeaker_lite.distill.logits import LogitsConfig, LogitsTerm


@dataclass(frozen=True)
class Config(LogitsConfig):
    """The options are those of all terms that compare logits."""


class Term(LogitsTerm):
    """T^2 * KL(teacher || student) of softened distributions, summed over classes (Hinton et al. 2015, section 2)."""

    def distance(self, taught: Tensor, teaching: Tensor, labels: Tensor) -> Tensor:
        return softened_kl(taught, teaching, self.config.temperature)


def softened_kl(taught: Tensor, teaching: Tensor, temperature: float, weights: Tensor | float = 1.0) -> Tensor:
    """T^2 * KL(teaching || taught) of logits (B, classes), a mean over the batch; `teaching` gets no gradient.

    weights: of the crops, (B,); those of weight 0 still count in the mean.
    """
    with torch.autocast(taught.device.type, enabled=False):
        log_taught = F.log_softmax(taught.float() / temperature, dim=1)
        log_teaching = F.log_softmax(teaching.detach().float() / temperature, dim=1)
        divergences = F.kl_div(log_taught, log_teaching, reduction="none", log_target=True).sum(1)
        return temperature**2 * (weights * divergences).mean()
