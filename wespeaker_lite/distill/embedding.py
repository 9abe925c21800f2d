"""KD at embedding level: the student's embedding learns to point where the teacher's points."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wespeaker_lite.distill.outputs import Outputs
from wespeaker_lite.distill.term import Partners, TermConfig
from wespeaker_lite.distill.term import Term as Base


@dataclass(frozen=True)
class Config(TermConfig):
    """`projection`: a learned linear map from the student's width to the teacher's; auto: where widths differ."""

    distance: Literal["cosine", "mse"] = "cosine"
    projection: Literal["auto", "always"] = "auto"


class Term(Base):
    """Distance between the student's (projected) embedding and the teacher's, averaged over the batch.

    cosine: 1 - cos. mse: the squared difference, averaged over dimensions. The teacher's side is detached; the
    projection trains with the student and is not part of what is deployed.
    """

    def __init__(self, config: Config, partners: Partners) -> None:
        super().__init__(config, partners)
        student_dim, teacher_dim = partners.student.embedding.shape[1], partners.teacher.embedding.shape[1]
        needed = config.projection == "always" or student_dim != teacher_dim
        self.projection = nn.Linear(student_dim, teacher_dim, bias=False) if needed else nn.Identity()

    def forward(self, student: Outputs, teacher: Outputs, labels: Tensor) -> dict[str, Tensor]:
        """Return the loss."""
        return {self.name: self._distance(student, teacher)}

    def _distance(self, student: Outputs, teacher: Outputs) -> Tensor:
        projected = self.projection(student.embedding)
        with torch.autocast(projected.device.type, enabled=False):
            projected, target = projected.float(), teacher.embedding.detach().float()
            if self.config.distance == "mse":
                return F.mse_loss(projected, target)
            return (1.0 - F.cosine_similarity(projected, target, dim=1)).mean()
