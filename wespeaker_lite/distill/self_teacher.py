"""SKDFE: the teacher is a network that refines the student's own maps, in the same pass.

Source: self-knowledge distillation via feature enhancement (Liu et al., ICASSP 2022, doi
10.1109/icassp43922.2022.9746529). Only the abstract is public, so this is a reconstruction after FRSKD (Ji et al., CVPR
2021, arXiv 2103.08273). It works with any network whose maps get smaller by whole strides.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from wespeaker_lite.core.config import bounded, to_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.labels import UNLABELLED
from wespeaker_lite.distill.label import softened_kl
from wespeaker_lite.distill.maps import as_planes, attention_transfer, cosine
from wespeaker_lite.distill.outputs import Outputs, logits_of
from wespeaker_lite.distill.term import TEMPERATURES, Partners, ramp
from wespeaker_lite.distill.term import Term as Base
from wespeaker_lite.models.margin import accuracy, build_head, cross_entropy
from wespeaker_lite.models.masking import full_precision
from wespeaker_lite.models.pooling import build_pooling

PARTS = ("enhancement", "pooling", "norm", "embedding", "head")  # of the self-teacher


@dataclass(frozen=True)
class Config:
    """The self-teacher, and what the student learns from it.

    Attributes:
        width: channels of the self-teacher, as a multiple of those of the student's map.
        depth: depthwise convolutions after each fusion.
        match: put a 1x1 convolution between maps `always`, or only if their channels are `unequal`, which is faster.
        pooling: pooling of the self-teacher. It should be that of the student.
        alpha: weight of the label level: the student learns the self-teacher's distribution over speakers. 0 for none.
        beta: weight of the feature level: the student's maps learn from their refinements. 0 for none.
        ramp_epochs: both weights grow from 0 over this many epochs after `start_epoch`.
        start_epoch: before this epoch, both weights are 0: the student does not learn from the self-teacher yet.
        learning_rate: learning rate of the self-teacher, as a multiple of the student's.
        ema: decay of a moving average of the self-teacher's weights. The average then teaches the student, which needs
            one more pass. 0 for none.
        crops: crops for the label level. `all`. `right`: those that the self-teacher classifies correctly.
            `confidence`: all, weighted by the self-teacher's probability of the labelled speaker at temperature 1.
            With `right` and `confidence`, unlabelled crops have weight 0.
        temperature: divides the logits of both sides before the softmax.
        logits: scaled cosines without margin, or with the margin (as in ENSKD, arXiv 2309.14838).
        distance: distance of a map from its refinement. `attention`: of energy maps of unit norm. `cosine` of the
            channels at each position, or `mse` of all values, both with a trained 1x1 adaptor.
    """

    width: float = bounded(1.0, 0.01, 100)
    depth: int = bounded(2, 1, 100)
    match: Literal["always", "unequal"] = "always"
    pooling: Literal["attentive", "statistics"] = "attentive"
    alpha: float = bounded(2.0, 0, 1e6)
    beta: float = bounded(1.0, 0, 1e6)
    ramp_epochs: float = bounded(0.0, 0, 100_000)
    start_epoch: float = bounded(0.0, 0, 100_000)
    learning_rate: float = bounded(1.0, 0.001, 1000)
    ema: float = bounded(0.0, 0, 0.99999)
    crops: Literal["all", "right", "confidence"] = "all"
    temperature: float = bounded(4.0, *TEMPERATURES)
    logits: Literal["cosine", "margin"] = "cosine"
    distance: Literal["attention", "cosine", "mse"] = "attention"


class Term(Base):
    """Losses `self_class` (weight 1), `self_label` (alpha) and `self_feature` (beta). A weight of 0 omits the loss.

    self_class: the self-teacher's own classification. Its gradient also trains the student through the maps.
    self_label: T^2 * KL(self-teacher || student), as `softened_kl`. self_feature: the distance of each map and its
    refinement, summed over maps. In the last two, the self-teacher's side is detached. self_accuracy, for the log only:
    the share of the crops that the self-teacher (or its average) classifies correctly, by cosines without margin.
    self_class and self_accuracy are over the labelled crops, the other losses over all.

    The pooling is followed by a batch norm, as in ECAPA-TDNN. Without it, the self-teacher is less accurate
    (reconstruction).
    """

    needs_teacher = False
    looks_inside = ("student",)

    def __init__(self, config: Config, partners: Partners) -> None:
        """Build the self-teacher for the sizes of the student's maps.

        Raises:
            InputError: naming the sizes, if there are fewer than two maps, or they do not get smaller by whole strides.
        """
        super().__init__(config, partners)
        maps = [as_planes(m) for m in partners.student.maps]
        _check_sizes(maps)
        channels = [m.shape[1] for m in maps]
        self.enhancement = Enhancement(channels, (3 if maps[0].shape[2] > 1 else 1, 3), config)
        wide = self.enhancement.channels
        self.pooling = build_pooling(config.pooling, wide[-1] * maps[-1].shape[2], bottleneck=128, global_context=True)
        self.norm = nn.BatchNorm1d(self.pooling.out_dim)
        embed_dim = partners.student.embedding.shape[1]
        self.embedding = nn.Linear(self.pooling.out_dim, embed_dim)
        self.head = build_head(to_mapping(partners.head), embed_dim, partners.classes)
        self.learning_rate = config.learning_rate
        self.average = self._copy_of_parts() if config.ema else None
        adapted = config.beta > 0 and config.distance != "attention"
        self.adaptors = nn.ModuleList(
            nn.Conv2d(ours, theirs, 1) if adapted else nn.Identity()
            for ours, theirs in zip(channels, wide, strict=True)
        )

    def forward(self, student: Outputs, teacher: Outputs | None, labels: Tensor) -> dict[str, Tensor]:
        """Return the losses of the config. A pretrained teacher is not used."""
        maps = [as_planes(m) for m in student.maps]
        refined, cosine_logits, margin_logits = refine(self, maps, labels)
        losses = {"self_class": cross_entropy(margin_logits, labels)}
        if self.average is not None:
            refined, cosine_logits, margin_logits = self._averaged(maps, labels)
        if self.config.alpha > 0:
            student_logits = getattr(student, f"{self.config.logits}_logits")
            teacher_logits = cosine_logits if self.config.logits == "cosine" else margin_logits
            weights = self._crop_weights(cosine_logits.detach(), labels)
            losses["self_label"] = softened_kl(student_logits, teacher_logits, self.config.temperature, weights)
        if self.config.beta > 0:
            losses["self_feature"] = self._feature_distance(maps, refined)
        return {**losses, "self_accuracy": accuracy(cosine_logits.detach(), labels)}

    def weights(self, epoch: float) -> dict[str, float]:
        """The weights of the three losses."""
        growth = 0.0
        if epoch >= self.config.start_epoch:
            growth = ramp(epoch - self.config.start_epoch, self.config.ramp_epochs)
        return {"self_class": 1.0, "self_label": self.config.alpha * growth, "self_feature": self.config.beta * growth}

    def _copy_of_parts(self) -> nn.ModuleDict:
        return nn.ModuleDict({name: copy.deepcopy(getattr(self, name)) for name in PARTS}).requires_grad_(False)

    @torch.no_grad()
    def _averaged(self, maps: Sequence[Tensor], labels: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Refine the maps by the moving average of the self-teacher. In training, update the average first."""
        if self.training:
            for name in PARTS:
                pairs = zip(self.average[name].parameters(), getattr(self, name).parameters(), strict=True)
                for average, own in pairs:
                    average.lerp_(own, 1 - self.config.ema)
        return refine(self.average, maps, labels)

    def _crop_weights(self, cosine_logits: Tensor, labels: Tensor) -> Tensor | float:
        if self.config.crops == "right":
            return (cosine_logits.argmax(1) == labels).float()
        if self.config.crops == "confidence":
            probabilities = cosine_logits.softmax(1).gather(1, labels.clamp(min=0)[:, None]).squeeze(1)
            return probabilities * (labels != UNLABELLED)
        return 1.0

    def _feature_distance(self, maps: Sequence[Tensor], refined: Sequence[Tensor]) -> Tensor:
        distance = DISTANCES[self.config.distance]
        adapted = [adaptor(m) for adaptor, m in zip(self.adaptors, maps, strict=True)]
        with torch.autocast(maps[0].device.type, enabled=False):
            return sum(
                distance(full_precision(ours), full_precision(theirs.detach()))
                for ours, theirs in zip(adapted, refined, strict=True)
            )


def refine(parts: nn.Module, maps: Sequence[Tensor], labels: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
    """Run maps through a self-teacher, a module with PARTS: its refinements, its cosine and its margin logits."""
    refined = parts.enhancement(maps)
    embedding = parts.embedding(parts.norm(parts.pooling(refined[-1])))
    return refined, *logits_of(parts.head, embedding, labels)


class Enhancement(nn.Module):
    """Maps (B, channels[i], bands, frames), from shallow to deep, -> refinements R_i with width * channels[i] channels.

    Reconstruction: from deep to shallow, P_n = L_n and P_i = join(L_i, P_{i+1}). Then from shallow to deep, R_1 = P_1
    and R_i = join(L'_i, P_i, R_{i-1}). L and L' are two sets of lateral 1x1 convolutions of the maps.
    """

    def __init__(self, channels: Sequence[int], kernel: tuple[int, int], config: Config) -> None:
        super().__init__()
        self.channels = [max(1, round(config.width * count)) for count in channels]
        pairs = list(zip(channels, self.channels, strict=True))
        self.laterals = nn.ModuleList(pointwise(*pair) for pair in pairs)
        self.second_laterals = nn.ModuleList(pointwise(*pair) for pair in pairs[1:])
        steps = list(pairwise(self.channels))
        self.top_down = nn.ModuleList(Join(deep, shallow, 1, kernel, config) for shallow, deep in steps)
        self.bottom_up = nn.ModuleList(Join(shallow, deep, 2, kernel, config) for shallow, deep in steps)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        passed = [lateral(m) for lateral, m in zip(self.laterals, maps, strict=True)]
        for index in reversed(range(len(self.top_down))):
            passed[index] = self.top_down[index](passed[index + 1], passed[index])
        refined = passed[:1]
        for join, lateral, own, down in zip(self.bottom_up, self.second_laterals, maps[1:], passed[1:], strict=True):
            refined.append(join(refined[-1], lateral(own), down))
        return refined


class Join(nn.Module):
    """Resize a neighbour's map to size and channels of `own` maps, fuse it with them, and refine the result.

    The learned weights of the fusion are a softmax. They sum to 1, and, unlike with a ReLU, none can get stuck at 0.
    """

    def __init__(
        self, neighbour_channels: int, channels: int, own: int, kernel: tuple[int, int], config: Config
    ) -> None:
        super().__init__()
        needed = config.match == "always" or neighbour_channels != channels
        self.match = pointwise(neighbour_channels, channels) if needed else nn.Identity()
        self.scores = nn.Parameter(torch.zeros(1 + own))
        self.refine = depthwise(channels, kernel, config.depth)

    def forward(self, neighbour: Tensor, *own: Tensor) -> Tensor:
        size = own[0].shape[2:]
        first, *weights = torch.softmax(self.scores, dim=0)
        # The neighbour is processed where it is small: after pooling, before interpolation.
        fused = enlarge(first * self.match(shrink(neighbour, size)), size)
        for weight, m in zip(weights, own, strict=True):
            fused = torch.addcmul(fused, weight, m)
        return self.refine(fused)


def pointwise(in_channels: int, out_channels: int) -> nn.Sequential:
    """1x1 convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)
    )


def depthwise(channels: int, kernel: tuple[int, int], depth: int) -> nn.Sequential:
    """`depth` blocks of depthwise convolution, 1x1 convolution and batch norm, with ReLU between blocks."""
    padding = (kernel[0] // 2, kernel[1] // 2)
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [
            nn.Conv2d(channels, channels, kernel, padding=padding, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers[:-1])


def shrink(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Max pooling to `size`, with kernel 3 and padding 1 on each axis that gets smaller. Smaller maps are unchanged."""
    strides = [-(-a // b) for a, b in zip(maps.shape[2:], size, strict=True)]
    if max(strides) == 1:
        return maps
    kernel = [3 if stride > 1 else 1 for stride in strides]
    return F.max_pool2d(maps, kernel, strides, padding=[k // 2 for k in kernel])


def enlarge(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Repeat values until the map has `size`. A map of that size is unchanged."""
    return maps if maps.shape[2:] == size else F.interpolate(maps, size)


# Distances of the student's map and its refinement, (B, C, bands, frames) in float32, averaged over the batch. None
# grows with the number of positions: attention maps have unit norm, the others are means. For `cosine` and `mse`, the
# student's map needs a trained 1x1 adaptor: it may have fewer channels, and it is the output of a ReLU, while its
# refinement is that of a norm.
DISTANCES = {"attention": attention_transfer, "cosine": cosine, "mse": F.mse_loss}


def _check_sizes(maps: Sequence[Tensor]) -> None:
    sizes = [tuple(m.shape[2:]) for m in maps]
    named = ", ".join("x".join(map(str, size)) for size in sizes) or "none"
    if len(maps) < 2:
        raise InputError(f"self_teacher: the student must have two maps or more (bands x frames); it has {named}")
    for fine, coarse in pairwise(sizes):
        if any(-(-a // -(-a // b)) != b for a, b in zip(fine, coarse, strict=True)):
            raise InputError(
                f"self_teacher: the student's maps (bands x frames) must get smaller by whole strides; they are {named}"
            )
