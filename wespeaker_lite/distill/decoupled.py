"""Decoupled KD at label level: separate losses for the target speaker and the others, which can have a larger weight.

Source: DKD (Zhao et al., CVPR 2022, arXiv 2203.08679), equations 7 and 8. For margin heads and speaker verification:
ENSKD (Truong et al., ICASSP 2024, arXiv 2309.14838), which emphasises the non-target speakers.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from wespeaker_lite.core.config import bounded
from wespeaker_lite.core.labels import UNLABELLED
from wespeaker_lite.distill.label import softened_kl
from wespeaker_lite.distill.logits import LogitsConfig, LogitsTerm


@dataclass(frozen=True)
class Config(LogitsConfig):
    """The weights of the two parts. DKD uses 1 and 8 on CIFAR-100.

    Attributes:
        target: weight of the part on the target speaker (alpha in DKD).
        nontarget: weight of the part on the other speakers (beta in DKD).
    """

    target: float = bounded(1.0, 0, 1e6)
    nontarget: float = bounded(8.0, 0, 1e6)


class Term(LogitsTerm):
    """T^2 * (target * KL of (p, 1 - p) + nontarget * KL of the distributions over the other classes).

    p is the probability of the labelled class. In plain label KD, the second KL is multiplied by 1 - p of the teacher:
    the more certain the teacher, the less the student learns about other speakers. Here the weight is constant.
    For an unlabelled crop, the teacher's most probable class counts as the labelled class.
    """

    def distance(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        temperature = self.config.temperature
        labels = torch.where(labels == UNLABELLED, teacher_logits.argmax(1), labels)
        ours, our_others = _split(student_logits / temperature, labels)
        theirs, their_others = _split(teacher_logits / temperature, labels)
        target = softened_kl(ours, theirs, 1.0)
        nontarget = softened_kl(our_others, their_others, 1.0)
        return temperature**2 * (self.config.target * target + self.config.nontarget * nontarget)


def _split(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Split logits (B, n) into those of target and all others together, (B, 2), and those of the others, (B, n - 1)."""
    target = labels[:, None]
    places = torch.arange(logits.shape[1] - 1, device=logits.device)
    others = logits.gather(1, places + (places >= target))  # a mask would make the host wait for its size
    return torch.cat((logits.gather(1, target), others.logsumexp(1, keepdim=True)), dim=1), others
