"""The student with head and KD terms as one module: crops in, losses out."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wespeaker_lite.distill.outputs import outputs_of
from wespeaker_lite.models.margin import MarginHead, accuracy, cross_entropy
from wespeaker_lite.training.fake_quantisation import FakeQuantisation


@dataclass
class Losses:
    """The losses of a batch.

    total: the sum of `weighted`, which is differentiated. parts: for the log, the losses before weighting and other
    values, detached. correct: the accuracy of the student on the labelled crops, by cosines without margin.
    """

    total: Tensor
    parts: dict[str, Tensor]
    correct: Tensor
    weighted: dict[str, Tensor]


class Learner(nn.Module):
    """A student with its head and the KD terms.

    The teacher is not a submodule, so that checkpoints, `parameters()` and `train()` do not include it.
    """

    def __init__(
        self, student: nn.Module, head: nn.Module, terms: nn.ModuleDict | None = None, teacher: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.student, self.head = student, head
        self.terms = terms if terms is not None else nn.ModuleDict()
        self._teacher = (teacher,)  # a tuple hides it from nn.Module
        self.quantisation: FakeQuantisation | None = None
        self._inside = {who for term in self.terms.values() for who in term.looks_inside}

    @property
    def teacher(self) -> nn.Module | None:
        """The frozen teacher, if there is one."""
        return self._teacher[0]

    def quantise(self) -> None:
        """Train the student with fake quantisation. Its weights must be loaded before."""
        self.quantisation = FakeQuantisation(self.student)

    def plain_student(self) -> nn.Module:
        """The student as a plain network. Training with fake quantisation ends."""
        if self.quantisation is not None:
            self.quantisation.remove()
            self.quantisation = None
        return self.student

    def move_to(self, device: torch.device) -> None:
        """Move everything, including the teacher, to the device, and set training mode."""
        for module in (self, self.teacher):
            if module is None:
                continue
            module.to(device)
            # cuDNN's convolutions in half precision need channels-last.
            if device.type == "cuda" and any(isinstance(layer, nn.Conv2d) for layer in module.modules()):
                module.to(memory_format=torch.channels_last)
        self.train()
        if self.teacher is not None:
            self.teacher.eval()

    def learning_rates(self) -> dict[nn.Parameter, float]:
        """The learning rates of parameters of terms, as multiples of the student's, if they differ from it."""
        faster = (term for term in self.terms.values() if term.learning_rate != 1.0)
        return {parameter: term.learning_rate for term in faster for parameter in term.parameters()}

    def set_margin(self, margin: float) -> None:
        """Set the margin of the student's head, and of the heads of terms."""
        for module in self.modules():
            if isinstance(module, MarginHead):
                module.set_margin(margin)

    def forward(self, feats: Tensor, labels: Tensor, indices: Tensor, epoch: float) -> Losses:
        """Compute the losses of crops (B, T, F), labels (B,) and indices of utterances (B,). `epoch` is fractional.

        The label of an unlabelled crop is -1. Such crops are only in the losses of terms.
        """
        student = outputs_of(self.student, self.head, feats, labels, inside="student" in self._inside)
        classification = cross_entropy(student.margin_logits, labels)
        parts, weighted = {"class": classification.detach()}, {"class": classification}
        teacher = None
        if self.teacher is not None:
            teacher = self.teacher(feats, labels, indices, inside="teacher" in self._inside)
        for term in self.terms.values():
            weights = term.weights(epoch)
            for name, loss in term(student, teacher, labels).items():
                parts[name] = loss.detach()
                if name in weights:
                    weighted[name] = weights[name] * loss
        correct = accuracy(student.cosine_logits.detach(), labels)
        return Losses(sum(weighted.values()), parts, correct, weighted)
