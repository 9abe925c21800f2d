"""The part of training that is differentiated: student, head and KD terms in, losses out."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wespeaker_lite.distill.outputs import outputs_of
from wespeaker_lite.models.margin import MarginHead


@dataclass
class Losses:
    """`total` is what is differentiated, the sum of `weighted`; `parts` are for the log.

    parts: the summands before weighting, and figures that are no losses, detached. correct: the share of the batch that
    the student's margin-free cosines classify rightly.
    """

    total: Tensor
    parts: dict[str, Tensor]
    correct: Tensor
    weighted: dict[str, Tensor]


class Learner(nn.Module):
    """A student with its head, and the KD terms that join it to a teacher.

    The teacher is not a submodule: it has no place in checkpoints, parameters or `train()`.
    """

    def __init__(
        self, student: nn.Module, head: nn.Module, terms: nn.ModuleDict | None = None, teacher: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.student, self.head = student, head
        self.terms = terms if terms is not None else nn.ModuleDict()
        self._teacher = (teacher,)  # a tuple hides it from nn.Module
        self._inside = {who for term in self.terms.values() for who in term.looks_inside}

    @property
    def teacher(self) -> nn.Module | None:
        """The frozen teacher, if there is one."""
        return self._teacher[0]

    def move_to(self, device: torch.device) -> None:
        """Move everything to the device, the teacher too, to be trained there."""
        for module in (self, self.teacher):
            if module is None:
                continue
            module.to(device)
            # cuDNN's convolutions in half precision want channels innermost.
            if device.type == "cuda" and any(isinstance(layer, nn.Conv2d) for layer in module.modules()):
                module.to(memory_format=torch.channels_last)
        self.train()
        if self.teacher is not None:
            self.teacher.eval()

    def learning_rates(self) -> dict[nn.Parameter, float]:
        """The learning rates of the terms' parameters, as multiples, where they are not the student's."""
        faster = (term for term in self.terms.values() if term.learning_rate != 1.0)
        return {parameter: term.learning_rate for term in faster for parameter in term.parameters()}

    def set_margin(self, margin: float) -> None:
        """Set the margin of the student's head, and of the heads of those terms that have one."""
        for module in self.modules():
            if isinstance(module, MarginHead):
                module.set_margin(margin)

    def forward(self, feats: Tensor, labels: Tensor, indices: Tensor, epoch: float) -> Losses:
        """Crops (B, T, F), labels (B,) and indices of utterances (B,) to losses; `epoch` drives the ramps of KD."""
        student = outputs_of(self.student, self.head, feats, labels, inside="student" in self._inside)
        classification = F.cross_entropy(student.margin_logits.float(), labels)
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
        correct = (student.cosine_logits.detach().argmax(1) == labels).float().mean()
        return Losses(sum(weighted.values()), parts, correct, weighted)
