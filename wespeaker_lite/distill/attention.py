"""KD of self-attention maps: each frame of the student learns to attend to the same frames as in the teacher.

Source: Choi et al., IEEE/ACM TASLP 32 (2024) 4580-4595 (abstract). Layers, heads and distances are a reconstruction
from MiniLM (Wang et al. 2020, arXiv 2002.10957) and TinyBERT (Jiao et al. 2020, arXiv 1909.10351). The size of a map
depends on neither channels nor frequency bins, so that networks of different sizes can be compared.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.distill.outputs import Outputs
from wespeaker_lite.distill.term import Partners, TermConfig
from wespeaker_lite.distill.term import Term as Base
from wespeaker_lite.models.activations import Attention
from wespeaker_lite.models.masking import full_precision


@dataclass(frozen=True)
class Config(TermConfig):
    """How self-attention maps are compared.

    Attributes:
        distance: `kl`: KL divergence of the rows of maps. `scores`: mean squared difference before the softmax.
            `centred`: the same after subtraction of the mean of each row, to which a softmax is invariant. `values`: KL
            divergence of the value relations softmax(v v^T / sqrt(d)).
        pairs: `stage`: the last block of each stage. `blocks`: each block of the student with the one at the same
            relative depth in the teacher's stage. `uniform`: the same over the whole network instead of each stage.
        heads: `match`: compare heads one by one. `mean`: compare the means over heads.
    """

    distance: Literal["kl", "scores", "centred", "values"] = "kl"
    pairs: Literal["stage", "blocks", "uniform"] = "stage"
    heads: Literal["match", "mean"] = "match"


class Term(Base):
    """The distance of attention maps, a mean over pairs of blocks, utterances, heads and rows (or scores)."""

    looks_inside = ("student", "teacher")

    def __init__(self, config: Config, partners: Partners) -> None:
        """Check that the maps of student and teacher can be compared.

        Raises:
            InputError: if one has no maps, or stages, heads or frame rates differ.
        """
        super().__init__(config, partners)
        by_crop = " (embeddings computed once have none; set source: crop)"
        for who, outputs, hint in (("student", partners.student, ""), ("teacher", partners.teacher, by_crop)):
            if not outputs.attention:
                raise InputError(f"distill: the attention term needs attention maps, and the {who} has none{hint}")
        _check_strides(partners)
        for ours, theirs in self._pairs(partners.student, partners.teacher):
            _check_sizes(ours, theirs)
            if config.heads == "match" and ours.query.shape[1] != theirs.query.shape[1]:
                raise InputError(
                    f"distill: the attention term matches heads, but the student has {ours.query.shape[1]} and the "
                    f"teacher {theirs.query.shape[1]}: set heads: mean"
                )

    def loss(self, student: Outputs, teacher: Outputs, labels: Tensor) -> Tensor:
        distances = [self._distance(ours, theirs) for ours, theirs in self._pairs(student, teacher)]
        return torch.stack(distances).mean()

    def _pairs(self, student: Outputs, teacher: Outputs) -> list[tuple[Attention, Attention]]:
        if self.config.pairs == "uniform":
            return _matched_by_depth(
                *([block for stage in each.attention for block in stage] for each in (student, teacher))
            )
        ours, theirs = len(student.attention), len(teacher.attention)
        if ours != theirs:
            raise InputError(
                f"distill: the attention term pairs stages, but the student has {ours} and the teacher {theirs}: "
                "set pairs: uniform"
            )
        stages = zip(student.attention, teacher.attention, strict=True)
        if self.config.pairs == "blocks":
            return [pair for ours, theirs in stages for pair in _matched_by_depth(ours, theirs)]
        return [(ours[-1], theirs[-1]) for ours, theirs in stages]

    def _distance(self, ours: Attention, theirs: Attention) -> Tensor:
        scores, targets = self._scores(ours), self._scores(theirs).detach()
        averaged = self.config.heads == "mean"
        if self.config.distance in ("scores", "centred"):
            if averaged:
                scores, targets = scores.mean(1), targets.mean(1)
            if self.config.distance == "centred":
                scores, targets = (each - each.mean(-1, keepdim=True) for each in (scores, targets))
            return F.mse_loss(scores, targets)
        log_rows, target_rows = _log_rows(scores, averaged), _log_rows(targets, averaged)
        rows = log_rows.shape[:-1].numel()
        return F.kl_div(log_rows, target_rows, reduction="sum", log_target=True) / rows

    def _scores(self, attention: Attention) -> Tensor:
        """The scores before the softmax, (B, heads, rows, columns), in float32 or float64."""
        query, key, value = (full_precision(part) for part in (attention.query, attention.key, attention.value))
        if self.config.distance == "values":
            query = key = value
        return Attention(query, key, value).scores()


def _matched_by_depth(ours: list[Attention], theirs: list[Attention]) -> list[tuple[Attention, Attention]]:
    """Pair each of our blocks with theirs at the same relative depth. The last ones are a pair."""
    return [(block, theirs[-(-(index + 1) * len(theirs) // len(ours)) - 1]) for index, block in enumerate(ours)]


def _log_rows(scores: Tensor, averaged: bool) -> Tensor:
    """The logarithm of the maps, (B, heads, rows, columns), or of their mean over heads, (B, rows, columns)."""
    log_rows = F.log_softmax(scores, dim=-1)
    if not averaged:
        return log_rows
    return log_rows.exp().mean(1).clamp(min=torch.finfo(scores.dtype).tiny).log()


def _check_strides(partners: Partners) -> None:
    ours, theirs = (-(-partners.frames // each.maps[-1].shape[-1]) for each in (partners.student, partners.teacher))
    if ours != theirs:
        raise InputError(
            f"distill: the attention term compares maps of one frame rate, but the student's stride over time is "
            f"{ours}, the teacher's {theirs} (model.stem_stride)"
        )


def _check_sizes(ours: Attention, theirs: Attention) -> None:
    sizes = [(each.query.shape[2], each.key.shape[2]) for each in (ours, theirs)]
    if sizes[0] != sizes[1]:
        (q, k), (other_q, other_k) = sizes
        raise InputError(
            f"distill: the attention term compares maps of one size, but the student's are {q} x {k}, the teacher's "
            f"{other_q} x {other_k}: both must attend over time, or both over maps of one size (model.attention)"
        )
