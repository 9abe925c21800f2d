"""What every KD term is: losses by name, and their weights during training."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wespeaker_lite.core.config import bounded
from wespeaker_lite.distill.outputs import Outputs
from wespeaker_lite.models.margin import HeadConfig


@dataclass(frozen=True)
class Partners:
    """Whom a term is built for: outputs of student and teacher for a crop without sound, from which it takes its sizes.

    head, classes: of the student's head, for a term that has one of its own. frames: of that crop. bank: the teacher's
    embeddings of the training utterances, (N, D), where they are made once.
    """

    student: Outputs
    teacher: Outputs | None
    head: HeadConfig
    classes: int
    frames: int
    bank: Tensor | None = None


TEMPERATURES = (0.01, 1000)  # lowest and highest: of a lower one, squares and exponentials overflow


@dataclass(frozen=True)
class TermConfig:
    """What every term with one loss can be told.

    Attributes:
        weight: factor of the loss.
        ramp_epochs: the weight grows from 0 over the first epochs, this many.
    """

    weight: float = bounded(1.0, 0, 1e6)
    ramp_epochs: float = bounded(0.0, 0, 100_000)


class Term(nn.Module):
    """A KD term, called after its file. What it learns is trained with the student and never deployed.

    needs_teacher: whether it is of no use without a pretrained teacher. looks_inside: whose maps and attention it asks
    for besides embedding and logits, `student` or `teacher`. learning_rate: of its own parameters, as a multiple of the
    student's.
    """

    needs_teacher = True
    looks_inside: tuple[str, ...] = ()
    learning_rate = 1.0

    def __init__(self, config: Any, partners: Partners) -> None:
        super().__init__()
        self.config = config
        self.name = type(self).__module__.rpartition(".")[2]

    def forward(self, student: Outputs, teacher: Outputs | None, labels: Tensor) -> dict[str, Tensor]:
        """Losses by name, each a scalar, before weighting; labels (B,) are those of the batch.

        What `weights` gives no weight is a figure for the log, and no loss.

        Here: of a term with one loss, called as the term is, and computed without autocast.

        Raises:
            InputError: where the outputs lack what the term needs.
        """
        with torch.autocast(student.embedding.device.type, enabled=False):
            return {self.name: self.loss(student, teacher, labels)}

    def loss(self, student: Outputs, teacher: Outputs | None, labels: Tensor) -> Tensor:
        """The loss of a term that has only one, a scalar; outputs may come in half precision, see `full_precision`."""
        raise NotImplementedError

    def weights(self, epoch: float) -> dict[str, float]:
        """The weight of each loss, by the same names, at a place in training such as epoch 2.5.

        Here: of a term with one loss, called as the term is.
        """
        return {self.name: self.config.weight * ramp(epoch, self.config.ramp_epochs)}


def ramp(epoch: float, ramp_epochs: float) -> float:
    """A factor that grows from 0 to 1 over the first `ramp_epochs`."""
    return min(1.0, epoch / ramp_epochs) if ramp_epochs > 0 else 1.0
