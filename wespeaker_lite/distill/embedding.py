"""KD at embedding level: the student's embedding learns to be close to the teacher's."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from wespeaker_lite.core.config import bounded
from wespeaker_lite.distill.outputs import Outputs
from wespeaker_lite.distill.projection import projector
from wespeaker_lite.distill.term import Partners, TermConfig
from wespeaker_lite.distill.term import Term as Base


@dataclass(frozen=True)
class Config(TermConfig):
    """How embeddings are compared.

    Attributes:
        distance: one minus the cosine, or the mean squared difference.
        projection: a learned projection from the student's size to the teacher's: `always`, or only if they differ
            (`auto`).
        depth: layers of this projection.
    """

    distance: Literal["cosine", "mse"] = "cosine"
    projection: Literal["auto", "always"] = "auto"
    depth: int = bounded(1, 1, 100)


class Term(Base):
    """Distance between the student's (projected) embedding and the teacher's, averaged over the batch.

    cosine: 1 - cos. mse: the squared difference, averaged over dimensions. The teacher's side is detached.
    """

    def __init__(self, config: Config, partners: Partners) -> None:
        super().__init__(config, partners)
        self.projection = projector(partners, config.depth, config.projection == "always")

    def loss(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        projected, target = self.projection(student.embedding.float()), teacher.embedding.detach().float()
        if self.config.distance == "mse":
            return F.mse_loss(projected, target)
        return (1.0 - F.cosine_similarity(projected, target, dim=1)).mean()
