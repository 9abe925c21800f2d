"""Classification heads for training: softmax, additive margin (AM) and additive angular margin (AAM), with sub-centres.

Angles are always computed in float32. Near 1, the step of bfloat16 is 0.004, which as an angle is as large as a margin.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wespeaker_lite.core.config import bounded, from_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.labels import UNLABELLED

# Floor of the squared sine, so that the gradient of the angle is finite for a cosine of 1 or -1.
SINE_SQUARE_FLOOR = 1e-6
LARGEST_MARGIN = 1.57  # below pi/2


@dataclass(frozen=True)
class HeadConfig:
    """The classifier over training speakers.

    Attributes:
        name: `softmax` without margin, `am` (additive margin) or `aam` (additive angular margin).
        scale: factor of the cosines before the softmax, for `am` and `aam`.
        margin: an angle in radians for `aam`, a difference of cosines for `am`. Its schedule is `train.margin`.
        subcenters: centres of each speaker, for `am` and `aam`. Only the nearest one is used.
        easy_margin: apply no margin to targets at more than 90 degrees, for `aam`.
    """

    name: Literal["softmax", "am", "aam"] = "aam"
    scale: float = bounded(32.0, 0.01, 10_000)
    margin: float = bounded(0.2, 0, LARGEST_MARGIN)
    subcenters: int = bounded(1, 1, 100)
    easy_margin: bool = False

    def __post_init__(self) -> None:
        if self.name == "softmax" and self.subcenters > 1:
            raise ValueError("softmax has no sub-centres; take am or aam, or set subcenters to 1")
        if self.name != "aam" and self.easy_margin:
            raise ValueError("easy_margin is an option of aam only")


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of logits (B, classes), averaged over the labelled crops of labels (B,). 0 if there are none."""
    total = F.cross_entropy(logits.float(), labels, ignore_index=UNLABELLED, reduction="sum")
    return total / _number_labelled(labels)


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of the labelled crops whose largest logit is that of the label. 0 if there are none."""
    return (logits.argmax(1) == labels).float().sum() / _number_labelled(labels)


def _number_labelled(labels: Tensor) -> Tensor:
    return (labels != UNLABELLED).sum().clamp(min=1)


def _check_margin(margin: float) -> None:
    if not 0 <= margin < math.pi / 2:
        raise ValueError(f"margin must be in [0, pi/2), not {margin}")


class MarginHead(nn.Module):
    """Cosine classifier. A margin reduces the cosine of the target. `weight` is (subcenters, classes, embed_dim).

    Attributes: `scale` (of the logits), `margin` (0 or more, see `set_margin`).
    Source of the sub-centres: Deng et al., ECCV 2020 (Sub-center ArcFace), section 3.2.
    """

    def __init__(self, config: HeadConfig, embed_dim: int, num_classes: int) -> None:
        super().__init__()
        self.scale = config.scale
        self.margin = config.margin
        self.weight = nn.Parameter(torch.empty(config.subcenters, num_classes, embed_dim))
        nn.init.xavier_uniform_(self.weight.view(-1, embed_dim))

    def set_margin(self, margin: float) -> None:
        """Set the margin. A margin schedule calls it at each step.

        Raises:
            ValueError: if the margin is outside [0, pi/2).
        """
        _check_margin(margin)
        self.margin = margin

    @torch.no_grad()
    def adopt(self, other: "MarginHead", ours: Tensor, theirs: Tensor) -> None:
        """Copy the weights of classes from another head of the same kind: its classes `theirs` (n,) to `ours` (n,)."""
        self.weight[:, ours] = other.weight[:, theirs]

    def cosine(self, embeddings: Tensor) -> Tensor:
        """Cosines to the nearest sub-centre of each class, without margin: (B, embed_dim) -> (B, classes), float32."""
        with torch.autocast(embeddings.device.type, enabled=False):
            weight = F.normalize(self.weight.flatten(0, 1), dim=1)
            cosines = F.linear(F.normalize(embeddings.to(weight.dtype), dim=1), weight)
            if self.weight.shape[0] == 1:
                return cosines
            return cosines.unflatten(1, self.weight.shape[:2]).amax(dim=1)

    def penalise(self, cosines: Tensor, labels: Tensor) -> Tensor:
        """Scaled logits, with the margin for the labels: (B, classes), labels (B,) int64 -> (B, classes).

        An unlabelled crop, with label -1, gets no margin.
        """
        if self.margin == 0:
            return self.scale * cosines
        labels = labels[:, None]
        places = labels.clamp(min=0)
        # The margin changes one value per utterance, so that the other angles need not be computed.
        targets = cosines.gather(1, places)
        targets = torch.where(labels == UNLABELLED, targets, self._with_margin(targets))
        return (self.scale * cosines).scatter_(1, places, self.scale * targets)

    def cosines_and_logits(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs of `cosine` and `forward`, each (B, classes), computed together."""
        cosines = self.cosine(embeddings)
        return cosines, self.penalise(cosines, labels)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Logits for cross-entropy: (B, embed_dim), labels (B,) int64 -> (B, classes), float32."""
        return self.cosines_and_logits(embeddings, labels)[1]

    def _with_margin(self, cosines: Tensor) -> Tensor:
        raise NotImplementedError


class AMHead(MarginHead):
    """cos(theta) - m (Wang et al., IEEE SPL 2018, equation 5)."""

    def _with_margin(self, cosines: Tensor) -> Tensor:
        return cosines - self.margin


class AAMHead(MarginHead):
    """cos(theta + m) (Deng et al., CVPR 2019, equation 3), and monotonic also for theta + m above pi."""

    def __init__(self, config: HeadConfig, embed_dim: int, num_classes: int) -> None:
        super().__init__(config, embed_dim, num_classes)
        self.easy_margin = config.easy_margin

    def _with_margin(self, cosines: Tensor) -> Tensor:
        sines = (1.0 - cosines.square()).clamp(min=SINE_SQUARE_FLOOR).sqrt()
        shifted = cosines * math.cos(self.margin) - sines * math.sin(self.margin)
        if self.easy_margin:
            return torch.where(cosines > 0, shifted, cosines)
        # For theta above pi - m, cos(theta + m) would increase again. A line of slope 1 continues from -1 instead.
        turn = math.cos(math.pi - self.margin)
        return torch.where(cosines > turn, shifted, cosines - (1.0 + turn))


class SoftmaxHead(MarginHead):
    """Linear classifier with bias, without normalisation or scale. Its margin is always 0.

    `scale` is for callers that scale the output of `cosine`.
    """

    def __init__(self, config: HeadConfig, embed_dim: int, num_classes: int) -> None:
        super().__init__(config, embed_dim, num_classes)
        self.margin = 0.0
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def set_margin(self, margin: float) -> None:
        """Do nothing: this head has no margin."""

    @torch.no_grad()
    def adopt(self, other: MarginHead, ours: Tensor, theirs: Tensor) -> None:
        super().adopt(other, ours, theirs)
        self.bias[ours] = other.bias[theirs]

    def penalise(self, cosines: Tensor, labels: Tensor) -> Tensor:
        """Not available: these logits depend on the norms of the embeddings, which cosines do not have."""
        raise NotImplementedError("a softmax head makes logits of embeddings, not of cosines: use cosines_and_logits")

    def cosines_and_logits(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.cosine(embeddings), self.forward(embeddings, labels)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(embeddings.device.type, enabled=False):
            return F.linear(embeddings.to(self.weight.dtype), self.weight[0], self.bias)


_HEADS: dict[str, type[MarginHead]] = {"softmax": SoftmaxHead, "am": AMHead, "aam": AAMHead}


def build_head(options: Mapping[str, Any], embed_dim: int, num_classes: int) -> MarginHead:
    """Build a head for `num_classes` speakers. `options` fill `HeadConfig`.

    Raises:
        InputError: for an unknown option (with the nearest match), a value out of range, or no class.
    """
    if num_classes < 1:
        raise InputError(f"head: {num_classes} classes; at least one speaker is needed")
    config: HeadConfig = from_mapping(HeadConfig, options, "head")
    return _HEADS[config.name](config, embed_dim, num_classes)
