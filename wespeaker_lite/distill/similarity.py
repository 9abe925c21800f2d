"""Similarity-preserving KD: what is alike for the teacher is alike for the student, which is what verification ranks.

Sources: the matrix of a batch with rows of unit length, Tung and Mori, ICCV 2019 (arXiv 1907.09682), equations 1 to 4;
softened similarities, also against a bank of the teacher's embeddings, SEED (Fang et al., ICLR 2021, arXiv 2101.04731).
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from wespeaker_lite.core.config import bounded
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.distill.label import softened_kl
from wespeaker_lite.distill.outputs import Outputs
from wespeaker_lite.distill.projection import projector
from wespeaker_lite.distill.term import TEMPERATURES, Partners, TermConfig
from wespeaker_lite.distill.term import Term as Base


@dataclass(frozen=True)
class Config(TermConfig):
    """How similarities are compared, and of what.

    Attributes:
        distance: `mse` of the cosines. `rows`: mse of the rows at unit length. `kl` of softmax(cosines / temperature).
        temperature: of `kl`.
        against: the other crops of the `batch`, or a `bank` of the teacher's embeddings of training utterances. With
            the bank, the student's embedding is projected where sizes differ.
        bank_size: utterances in the bank, spread evenly over the training set. 0 for all.
    """

    distance: Literal["mse", "rows", "kl"] = "kl"
    temperature: float = bounded(0.1, *TEMPERATURES)
    against: Literal["batch", "bank"] = "batch"
    bank_size: int = bounded(8192, 0, 10**9)


class Term(Base):
    """The distance of the matrices of cosines, (B, B) or (B, bank), of student and teacher.

    A mean over entries, for `kl` over rows. The cosine of a crop with itself is left out, but for `rows`. The teacher's
    side is detached. The batch is that of one process.
    """

    def __init__(self, config: Config, partners: Partners) -> None:
        """Take the bank from the teacher.

        Raises:
            InputError: where a bank is asked for, and the teacher's embeddings are not made once.
        """
        super().__init__(config, partners)
        self.projection, bank = nn.Identity(), None
        if config.against == "bank":
            if partners.bank is None:
                raise InputError(
                    "distill: the similarity term has no bank to compare with: it needs embeddings made once (source: "
                    "utterance, or distill.embeddings); or set against: batch"
                )
            step = -(-len(partners.bank) // config.bank_size) if config.bank_size else 1
            bank = F.normalize(partners.bank[::step].float(), dim=1)
            self.projection = projector(partners, depth=1)
        self.register_buffer("bank", bank, persistent=False)

    def loss(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        ours = F.normalize(self.projection(student.embedding.float()), dim=1)
        theirs = F.normalize(teacher.embedding.detach().float(), dim=1)
        if self.bank is None and len(ours) < 2:  # a process's share of a batch may be so small
            return ours.new_zeros(())
        taught, teaching = (points @ (points if self.bank is None else self.bank).T for points in (ours, theirs))
        if self.config.distance == "rows":
            return F.mse_loss(F.normalize(taught, dim=1), F.normalize(teaching, dim=1))
        if self.bank is None:
            taught, teaching = _without_diagonal(taught), _without_diagonal(teaching)
        if self.config.distance == "mse":
            return F.mse_loss(taught, teaching)
        return softened_kl(taught / self.config.temperature, teaching / self.config.temperature, 1.0)


def _without_diagonal(matrix: Tensor) -> Tensor:
    """The rows of a square matrix (B, B) without their own column: (B, B - 1)."""
    size = len(matrix)
    # Without its first entry, the matrix is size - 1 rows of size entries and one of the diagonal.
    return matrix.flatten()[1:].view(size - 1, size + 1)[:, :-1].reshape(size, size - 1)
