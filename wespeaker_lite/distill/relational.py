"""Relational KD: the student learns the distances and angles between the teacher's embeddings of a batch.

Source: RKD (Park et al., CVPR 2019, arXiv 1904.05068), equations 3 to 8. The sizes of the embeddings may differ.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from wespeaker_lite.core.config import bounded
from wespeaker_lite.distill.outputs import Outputs
from wespeaker_lite.distill.term import Term as Base
from wespeaker_lite.distill.term import TermConfig

# Two embeddings can be equal, and a square root has no gradient at 0.
SQUARE_FLOOR = 1e-12


@dataclass(frozen=True)
class Config(TermConfig):
    """The weights of the two parts. RKD-DA uses 25 and 50 for retrieval, with unit vectors.

    Attributes:
        distances: weight of the distances of pairs.
        angles: weight of the angles of triples.
        normalise: compare embeddings of unit norm, as in cosine scoring.
    """

    distances: float = bounded(1.0, 0, 1e6)
    angles: float = bounded(2.0, 0, 1e6)
    normalise: bool = True

    def __post_init__(self) -> None:
        if not self.distances + self.angles:
            raise ValueError("expected distances and angles, not both 0")


class Term(Base):
    """distances * Huber of all pairs' distances + angles * Huber of all triples' cosines, means over pairs and triples.

    Distances are divided by their mean over the batch, for student and teacher. The Huber loss is linear above 1. The
    teacher's side is detached. Pairs and triples are of the crops of one process. Angles need batch^3 numbers: 8 MB for
    128 crops.
    """

    def loss(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        ours, theirs = self._points(student.embedding), self._points(teacher.embedding.detach())
        total = ours.new_zeros(())
        if len(ours) < 3:  # the share of a process can be small
            return total
        if self.config.distances:
            total = total + self.config.distances * F.smooth_l1_loss(_distances(ours), _distances(theirs))
        if self.config.angles:
            differences = F.smooth_l1_loss(_angles(ours), _angles(theirs), reduction="sum")
            total = total + self.config.angles * differences / math.perm(len(ours), 3)
        return total

    def _points(self, embedding: Tensor) -> Tensor:
        embedding = embedding.float()
        return F.normalize(embedding, dim=1) if self.config.normalise else embedding


def _distances(points: Tensor) -> Tensor:
    """The distances of all pairs of points (B, D) in units of their mean: (B * (B - 1) / 2,)."""
    first, second = torch.triu_indices(len(points), len(points), offset=1, device=points.device)
    distances = (points[first] - points[second]).square().sum(1).clamp(min=SQUARE_FLOOR).sqrt()
    return distances / distances.mean()


def _angles(points: Tensor) -> Tensor:
    """The cosines of the angles at each point of all triples (B, B, B); 0 for triples with a repeated point."""
    directions = F.normalize(points[None] - points[:, None], dim=2)  # [j, i] from point j to point i
    cosines = directions @ directions.transpose(1, 2)
    same = torch.eye(len(points), dtype=torch.bool, device=points.device)
    return cosines.masked_fill(same[:, :, None] | same[:, None] | same[None], 0.0)
