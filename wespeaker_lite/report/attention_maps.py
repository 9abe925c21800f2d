"""The distance of students' self-attention maps from their teacher's: a picture, and a number for each stage."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.files import write_text
from wespeaker_lite.extraction.extract import read_features
from wespeaker_lite.kaldi.arks import read_scp
from wespeaker_lite.recipe import trained_model
from wespeaker_lite.recipe.trained_model import TrainedModel
from wespeaker_lite.report.plots import draw_attention_maps

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Excerpt:
    """The part of a test set to measure: the first `utterances` by key, and at most the first `seconds` of each."""

    utterances: int = 20
    seconds: float = 3.0

    def __post_init__(self) -> None:
        if self.utterances < 1 or not self.seconds > 0:
            raise InputError("--utterances and --seconds must be more than 0")


@dataclass(frozen=True)
class SystemMaps:
    """The attention maps of a system, by utterance and stage, and the length of the first utterance.

    entropies: for each stage, the mean entropy of a row, in nats, over utterances, heads and rows.
    """

    name: str
    maps: list[list[Tensor]]
    entropies: list[float]
    frames: int
    seconds: float


def load_systems(texts: Sequence[str]) -> dict[str, TrainedModel]:
    """Load systems from texts `NAME=final.pt`. The first is the teacher.

    Raises:
        InputError: if a part is missing, a name is repeated, or there are fewer than two.
    """
    pairs = [text.partition("=") for text in texts]
    names = {name for name, _, _ in pairs}
    if len(pairs) < 2 or len(names) < len(pairs) or not all(name and path for name, _, path in pairs):
        raise InputError("--system: expected NAME=final.pt of the teacher and then of each student, no name twice")
    return {name: trained_model.load(path) for name, _, path in pairs}


def write_attention(
    systems: Mapping[str, TrainedModel], data: str | Path, picture: str | Path, excerpt: Excerpt
) -> dict[str, Any]:
    """Draw the maps of the first utterance, and write the measured values to a .json in the same folder.

    Returns:
        The values. `kl`: for each student and stage, KL(teacher's row || student's row) in nats, for the maps of the
        last block, averaged over heads; a mean over rows and utterances. `flat`: the same for a uniform map. `entropy`:
        for each system and stage, the mean entropy of a row of a head, in nats. `flat_entropy`: that of a uniform map,
        which is the maximum. Maps that are not only over time are measured, but not drawn.

    Raises:
        InputError: if a network has no self-attention, the size of its maps differs from the teacher's, or features are
            missing.
    """
    picture = Path(picture)
    teacher, *students = (_measure(name, trained, Path(data), excerpt) for name, trained in systems.items())
    flat = _flat(teacher)
    figures = {
        "teacher": teacher.name,
        "utterances": len(teacher.maps),
        "seconds": excerpt.seconds,
        "kl": {student.name: _divergences(teacher, student) for student in students},
        "flat": _divergences(teacher, flat),
        "entropy": {system.name: system.entropies for system in (teacher, *students)},
        "flat_entropy": flat.entropies,
        "utterance": next(iter(read_scp(Path(data) / "feats.scp"))),
        "picture": picture.name if _draw(picture, [teacher, *students]) else None,
    }
    write_text(picture.with_suffix(".json"), json.dumps(figures, indent=2) + "\n")
    return figures


def head_maps(name: str, trained: TrainedModel, feats: Tensor) -> list[Tensor]:
    """Compute the attention maps of each stage's last block for feats (T, F): (heads, T', T') each, float64.

    Raises:
        InputError: naming the system, if its network has no self-attention.
    """
    with torch.inference_mode():
        stages = trained.model.activations(feats[None]).attention
        maps = [stage[-1].scores()[0].double().softmax(-1) for stage in stages]
    if not maps:
        raise InputError(f"{name}: its network ({trained.config['model']['name']}) has no self-attention to show")
    return maps


def row_divergence(teacher: Tensor, student: Tensor) -> float:
    """The mean over rows of KL(teacher's row || student's row), in nats, of two maps (rows, columns)."""
    log_rows = student.clamp(min=torch.finfo(student.dtype).tiny).log()
    return float(F.kl_div(log_rows, teacher, reduction="batchmean"))


def row_entropies(maps: Tensor) -> Tensor:
    """The entropy in nats of each row of maps (..., rows, columns): (..., rows)."""
    return torch.special.entr(maps).sum(-1)


def _measure(name: str, trained: TrainedModel, data: Path, excerpt: Excerpt) -> SystemMaps:
    """Compute the maps of a system. Features are cut after subtraction of the whole utterance's mean, as in stage 5."""
    shift = trained.config["features"]["frame_shift_ms"] / 1000
    frames = max(1, round(excerpt.seconds / shift))
    places = list(read_scp(data / "feats.scp").items())[: excerpt.utterances]
    crops = [read_features(*place, trained)[:frames] for place in places]
    by_head = [head_maps(name, trained, crop) for crop in crops]
    maps = [[stage.mean(0) for stage in utterance] for utterance in by_head]
    return SystemMaps(name, maps, _entropies(by_head), len(crops[0]), len(crops[0]) * shift)


def _entropies(maps: Sequence[Sequence[Tensor]]) -> list[float]:
    return np.mean([[float(row_entropies(stage).mean()) for stage in utterance] for utterance in maps], axis=0).tolist()


def _flat(system: SystemMaps) -> SystemMaps:
    maps = [[torch.full_like(stage, 1 / stage.shape[1]) for stage in utterance] for utterance in system.maps]
    return replace(system, name="flat", maps=maps, entropies=_entropies(maps))


def _divergences(teacher: SystemMaps, student: SystemMaps) -> list[float]:
    sizes = [[tuple(stage.shape) for stage in system.maps[0]] for system in (teacher, student)]
    if sizes[0] != sizes[1]:
        raise InputError(
            f"{teacher.name} and {student.name}: their attention maps cannot be compared; for one utterance the sizes "
            f"by stage are {sizes[0]} and {sizes[1]}"
        )
    utterances = zip(teacher.maps, student.maps, strict=True)
    divergences = [[row_divergence(*pair) for pair in zip(*maps, strict=True)] for maps in utterances]
    return np.mean(divergences, axis=0).tolist()


def _draw(picture: Path, systems: Sequence[SystemMaps]) -> bool:
    """Draw the maps of the first utterance, if they are over time only."""
    teacher = systems[0]
    if not all(rows == columns <= teacher.frames for rows, columns in (each.shape for each in teacher.maps[0])):
        log.warning("%s not drawn: the attention of %s is not only over time", picture, teacher.name)
        return False
    maps = {system.name: [stage.numpy() for stage in system.maps[0]] for system in systems}
    return draw_attention_maps(picture, maps, teacher.seconds)
