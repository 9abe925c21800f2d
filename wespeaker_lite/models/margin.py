"""Classification heads for training: softmax, additive margin (AM) and additive angular margin (AAM), with sub-centres.

Angles are computed in float32 under any autocast: near 1 bfloat16 cosines are 0.004 apart, a margin's worth of angle.
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

# Floor of the squared sine: the gradient of the angle stays finite where a cosine is 1 or -1.
SINE_SQUARE_FLOOR = 1e-6
LARGEST_MARGIN = 1.57  # an angle is below pi/2


@dataclass(frozen=True)
class HeadConfig:
    """The classifier over training speakers.

    Attributes:
        name: `softmax` without margin, `am` (additive margin) or `aam` (additive angular margin).
        scale: factor of the cosines before the softmax, for `am` and `aam`.
        margin: an angle in radians for `aam`, a difference of cosines for `am`. Its schedule is `train.margin`.
        subcenters: centres of each speaker, of which the nearest counts, for `am` and `aam`.
        easy_margin: leave targets at more than 90 degrees without margin, for `aam`.
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
            raise ValueError("easy_margin is an option of aam alone")


def _check_margin(margin: float) -> None:
    if not 0 <= margin < math.pi / 2:
        raise ValueError(f"margin must be in [0, pi/2), not {margin}")


class MarginHead(nn.Module):
    """Cosine classifier whose target cosine is made smaller by a margin; `weight` is (subcenters, classes, embed_dim).

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
        """Set the margin that the next `forward` takes (a margin schedule calls it each step).

        Raises:
            ValueError: outside [0, pi/2).
        """
        _check_margin(margin)
        self.margin = margin

    @torch.no_grad()
    def adopt(self, other: "MarginHead", ours: Tensor, theirs: Tensor) -> None:
        """Take over classes from another head of the same kind: its rows `theirs` (n,) become ours at `ours` (n,)."""
        self.weight[:, ours] = other.weight[:, theirs]

    def cosine(self, embeddings: Tensor) -> Tensor:
        """Margin-free cosines to each class's nearest sub-centre: (B, embed_dim) -> (B, classes), float32."""
        with torch.autocast(embeddings.device.type, enabled=False):
            weight = F.normalize(self.weight.flatten(0, 1), dim=1)
            cosines = F.linear(F.normalize(embeddings.to(weight.dtype), dim=1), weight)
            if self.weight.shape[0] == 1:
                return cosines
            return cosines.unflatten(1, self.weight.shape[:2]).amax(dim=1)

    def penalise(self, cosines: Tensor, labels: Tensor) -> Tensor:
        """Scaled logits, the labelled class' with the margin: (B, classes), labels (B,) int64 -> (B, classes)."""
        if self.margin == 0:
            return self.scale * cosines
        labels = labels[:, None]
        # The margin touches one number a row; the angle of the others is never computed.
        targets = self._with_margin(cosines.gather(1, labels))
        return (self.scale * cosines).scatter_(1, labels, self.scale * targets)

    def cosines_and_logits(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """What `cosine` and `forward` give, for the price of one: two of (B, classes)."""
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
    """cos(theta + m) (Deng et al., CVPR 2019, equation 3), kept monotonic where theta + m passes pi."""

    def __init__(self, config: HeadConfig, embed_dim: int, num_classes: int) -> None:
        super().__init__(config, embed_dim, num_classes)
        self.easy_margin = config.easy_margin

    def _with_margin(self, cosines: Tensor) -> Tensor:
        sines = (1.0 - cosines.square()).clamp(min=SINE_SQUARE_FLOOR).sqrt()
        shifted = cosines * math.cos(self.margin) - sines * math.sin(self.margin)
        if self.easy_margin:
            return torch.where(cosines > 0, shifted, cosines)
        # Beyond pi - m the cosine of the sum would rise again; a line of slope 1 continues from -1 instead.
        turn = math.cos(math.pi - self.margin)
        return torch.where(cosines > turn, shifted, cosines - (1.0 + turn))


class SoftmaxHead(MarginHead):
    """Plain linear classifier with bias, neither normalised nor scaled; its margin is always 0.

    `scale` serves those who want the scaled cosines of `cosine`.
    """

    def __init__(self, config: HeadConfig, embed_dim: int, num_classes: int) -> None:
        super().__init__(config, embed_dim, num_classes)
        self.margin = 0.0
        self.bias = nn.Parameter(torch.zeros(num_classes))

    def set_margin(self, margin: float) -> None:
        """Without effect: there is no margin here, and a schedule need not know."""

    @torch.no_grad()
    def adopt(self, other: MarginHead, ours: Tensor, theirs: Tensor) -> None:
        super().adopt(other, ours, theirs)
        self.bias[ours] = other.bias[theirs]

    def penalise(self, cosines: Tensor, labels: Tensor) -> Tensor:
        """Not to be had: plain logits depend on the lengths of the embeddings, which cosines have lost."""
        raise NotImplementedError("a softmax head makes logits of embeddings, not of cosines: use cosines_and_logits")

    def cosines_and_logits(self, embeddings: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self.cosine(embeddings), self.forward(embeddings, labels)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        with torch.autocast(embeddings.device.type, enabled=False):
            return F.linear(embeddings.to(self.weight.dtype), self.weight[0], self.bias)


_HEADS: dict[str, type[MarginHead]] = {"softmax": SoftmaxHead, "am": AMHead, "aam": AAMHead}


def build_head(options: Mapping[str, Any], embed_dim: int, num_classes: int) -> MarginHead:
    """Build a head for `num_classes` speakers; `options` fill `HeadConfig`.

    Raises:
        InputError: for an unknown option (with the nearest match), a value out of range, or no class.
    """
    if num_classes < 1:
        raise InputError(f"head: {num_classes} classes; at least one speaker is needed")
    config: HeadConfig = from_mapping(HeadConfig, options, "head")
    return _HEADS[config.name](config, embed_dim, num_classes)
