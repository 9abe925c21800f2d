"""The base of KD terms: losses by name, and their weights during training."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wespeaker_lite.core.config import bounded
from wespeaker_lite.distill.outputs import Outputs
from wespeaker_lite.models.margin import HeadConfig


@dataclass(frozen=True)
class Partners:
    """Student and teacher of a term. Their outputs for a crop of zeros give the term its sizes.

    head, classes: options and number of classes of the student's head, for a term with a head. frames: length of the
    crop. bank: the teacher's embeddings of the training utterances, (N, D), if they are computed once.
    """

    student: Outputs
    teacher: Outputs | None
    head: HeadConfig
    classes: int
    frames: int
    bank: Tensor | None = None


TEMPERATURES = (0.01, 1000)  # lowest and highest; below, squares and exponentials overflow


@dataclass(frozen=True)
class TermConfig:
    """The options of all terms with one loss.

    Attributes:
        weight: factor of the loss.
        ramp_epochs: the weight grows from 0 over the first `ramp_epochs` epochs.
    """

    weight: float = bounded(1.0, 0, 1e6)
    ramp_epochs: float = bounded(0.0, 0, 100_000)


class Term(nn.Module):
    """A KD term, named after its file. Its parameters are trained with the student and not deployed.

    needs_teacher: whether it needs a pretrained teacher. looks_inside: `student`, `teacher` or both, if it needs their
    maps and attention besides embedding and logits. learning_rate: that of its parameters, as a multiple of the
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
        """Compute the losses by name, each a scalar, before weighting. labels: (B,), -1 for unlabelled crops.

        A value without a weight in `weights` is only logged. This implementation is for a term with one loss, which has
        the name of the term and is computed without autocast.

        Raises:
            InputError: if the outputs lack what the term needs.
        """
        with torch.autocast(student.embedding.device.type, enabled=False):
            return {self.name: self.loss(student, teacher, labels)}

    def loss(self, student: Outputs, teacher: Outputs | None, labels: Tensor) -> Tensor:
        """The loss of a term with one loss, a scalar. Outputs may be in half precision, see `full_precision`."""
        raise NotImplementedError

    def weights(self, epoch: float) -> dict[str, float]:
        """The weight of each loss by name, at a fractional epoch such as 2.5. Here for a term with one loss."""
        return {self.name: self.config.weight * ramp(epoch, self.config.ramp_epochs)}


def ramp(epoch: float, ramp_epochs: float) -> float:
    """A factor that grows from 0 to 1 over the first `ramp_epochs`."""
    return min(1.0, epoch / ramp_epochs) if ramp_epochs > 0 else 1.0
