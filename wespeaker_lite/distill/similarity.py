"""Similarity-preserving KD: the student learns the teacher's cosines between utterances, the scores of verification.

Sources: the matrix of a batch with rows of unit norm, Tung and Mori, ICCV 2019 (arXiv 1907.09682), equations 1 to 4.
Softened similarities, also with a bank of the teacher's embeddings: SEED (Fang et al., ICLR 2021, arXiv 2101.04731).
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
    """How similarities are compared, and with which embeddings they are computed.

    Attributes:
        distance: `mse` of the cosines. `rows`: mse of the rows after scaling to unit norm. `kl`: KL divergence of
            softmax(cosines / temperature).
        temperature: temperature of `kl`.
        against: cosines with the other crops of the `batch`, or with a `bank` of the teacher's embeddings of training
            utterances. With the bank, the student's embedding is projected if sizes differ.
        bank_size: utterances in the bank, spread evenly over the training set. 0 for all.
    """

    distance: Literal["mse", "rows", "kl"] = "kl"
    temperature: float = bounded(0.1, *TEMPERATURES)
    against: Literal["batch", "bank"] = "batch"
    bank_size: int = bounded(8192, 0, 10**9)


class Term(Base):
    """The distance of the matrices of cosines, (B, B) or (B, bank), of student and teacher.

    It is a mean over entries, or for `kl` over rows. The cosine of a crop with itself is omitted, except for `rows`.
    The teacher's side is detached. The batch is that of one process.
    """

    def __init__(self, config: Config, partners: Partners) -> None:
        """Build the bank from the teacher's embeddings.

        Raises:
            InputError: if `against` is `bank`, and the teacher's embeddings are not computed once.
        """
        super().__init__(config, partners)
        self.projection, bank = nn.Identity(), None
        if config.against == "bank":
            if partners.bank is None:
                raise InputError(
                    "distill: the similarity term has no bank: it needs embeddings computed once (source: utterance, "
                    "or distill.embeddings); or set against: batch"
                )
            step = -(-len(partners.bank) // config.bank_size) if config.bank_size else 1
            bank = F.normalize(partners.bank[::step].float(), dim=1)
            self.projection = projector(partners, depth=1)
        self.register_buffer("bank", bank, persistent=False)

    def loss(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        ours = F.normalize(self.projection(student.embedding.float()), dim=1)
        theirs = F.normalize(teacher.embedding.detach().float(), dim=1)
        if self.bank is None and len(ours) < 2:  # the share of a process can be small
            return ours.new_zeros(())
        student_cosines, teacher_cosines = (
            points @ (points if self.bank is None else self.bank).T for points in (ours, theirs)
        )
        if self.config.distance == "rows":
            return F.mse_loss(F.normalize(student_cosines, dim=1), F.normalize(teacher_cosines, dim=1))
        if self.bank is None:
            student_cosines, teacher_cosines = _without_diagonal(student_cosines), _without_diagonal(teacher_cosines)
        if self.config.distance == "mse":
            return F.mse_loss(student_cosines, teacher_cosines)
        return softened_kl(student_cosines / self.config.temperature, teacher_cosines / self.config.temperature, 1.0)


def _without_diagonal(matrix: Tensor) -> Tensor:
    """Remove the diagonal of a square matrix: (B, B) -> (B, B - 1)."""
    size = len(matrix)
    # After the first entry, every run of size + 1 entries ends with one of the diagonal.
    return matrix.flatten()[1:].view(size - 1, size + 1)[:, :-1].reshape(size, size - 1)
