"""KD of intermediate maps: a layer of the student learns the output of a layer of a pretrained teacher.

Sources: hints through adaptors, FitNets (Romero et al., ICLR 2015, arXiv 1412.6550); attention transfer (Zagoruyko and
Komodakis, ICLR 2017, arXiv 1612.03928); normalised channels (PKD, arXiv 2207.02039).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.distill.maps import as_planes, attention_transfer, normalised_mse
from wespeaker_lite.distill.outputs import Outputs
from wespeaker_lite.distill.term import Partners, TermConfig
from wespeaker_lite.distill.term import Term as Base
from wespeaker_lite.models.masking import full_precision

DISTANCES = {"mse": F.mse_loss, "normalised": normalised_mse, "attention": attention_transfer}


@dataclass(frozen=True)
class Config(TermConfig):
    """Which layers are compared, and how.

    Attributes:
        distance: `mse`, or `normalised` (mse after normalisation of each channel to mean 0 and variance 1), both with a
            trained 1x1 adaptor. `attention`: energy maps, without adaptor.
        layers: pairs [layer of the student, layer of the teacher], numbered from 1 in the order of the networks'
            `activations`. Empty for the last of each.
    """

    distance: Literal["mse", "normalised", "attention"] = "normalised"
    layers: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        if any(len(pair) != 2 or min(pair) < 1 for pair in self.layers):
            raise ValueError("expected layers as pairs of numbers from 1, such as [[1, 1], [3, 4]]")


class Term(Base):
    """The distance of the maps of each pair of layers, a mean over pairs.

    If both maps have frequency bands, channels are compared. If one is over time only, channels and bands of the other
    count as channels. If strides differ, the finer map is averaged to the size of the coarser, on each axis. The
    teacher's side is detached. Adaptors are trained with the student and are not deployed.
    """

    looks_inside = ("student", "teacher")

    def __init__(self, config: Config, partners: Partners) -> None:
        """Build the adaptors for the sizes of the maps.

        Raises:
            InputError: if student or teacher has no maps, or fewer than `layers` needs.
        """
        super().__init__(config, partners)
        pairs = self._pairs(partners.student, partners.teacher)
        adapted = config.distance != "attention"
        self.adaptors = nn.ModuleList(
            nn.Conv2d(ours.shape[1], theirs.shape[1], 1) if adapted else nn.Identity() for ours, theirs in pairs
        )

    def loss(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        distance = DISTANCES[self.config.distance]
        pairs = zip(self.adaptors, self._pairs(student, teacher), strict=True)
        return torch.stack([distance(adaptor(ours), theirs) for adaptor, (ours, theirs) in pairs]).mean()

    def _pairs(self, student: Outputs, teacher: Outputs) -> list[tuple[Tensor, Tensor]]:
        for who, outputs, why in (
            ("student", student, ""),
            ("teacher", teacher, "; embeddings computed once have none"),
        ):
            if not outputs.maps:
                raise InputError(f"distill: the hint term needs maps of layers, and the {who} has none{why}")
        layers = self.config.layers or ((len(student.maps), len(teacher.maps)),)
        for ours, theirs in layers:
            if ours > len(student.maps) or theirs > len(teacher.maps):
                raise InputError(
                    f"distill: the hint term names layers [{ours}, {theirs}], but the student has "
                    f"{len(student.maps)} and the teacher {len(teacher.maps)}"
                )
        return [_aligned(student.maps[ours - 1], teacher.maps[theirs - 1].detach()) for ours, theirs in layers]


def _aligned(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps as (B, C, bands, frames) with equal bands and frames, in float32 or float64."""
    if ours.dim() != theirs.dim():
        ours, theirs = (maps.flatten(1, -2) for maps in (ours, theirs))
    ours, theirs = (as_planes(full_precision(maps)) for maps in (ours, theirs))
    size = [min(sizes) for sizes in zip(ours.shape[2:], theirs.shape[2:], strict=True)]
    return _averaged(ours, size), _averaged(theirs, size)


def _averaged(maps: Tensor, size: list[int]) -> Tensor:
    return maps if list(maps.shape[2:]) == size else F.adaptive_avg_pool2d(maps, size)
