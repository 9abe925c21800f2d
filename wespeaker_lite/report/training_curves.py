"""Training curves from metrics.jsonl, by the name of each loss."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

log = logging.getLogger(__name__)

PLACE = ("step", "epoch", "batch", "event")
SPEED = ("utt_per_s", "wait")
EPOCH_END = "done"


class Point(NamedTuple):
    """A value at a fractional epoch, such as 2.5."""

    epochs: float
    value: float


@dataclass(frozen=True)
class Record:
    """A line of metrics.jsonl: step, epoch, whether it is the end of an epoch, and values by name."""

    step: int
    epoch: int
    ends_epoch: bool
    values: dict[str, float]


@dataclass(frozen=True)
class Curve:
    """A loss, rate or accuracy: means since the last line of the log, and means over whole epochs."""

    name: str
    lines: list[Point]
    epochs: list[Point]


def read_records(path: str | Path) -> list[Record]:
    """Read metrics.jsonl. A malformed line is skipped with a warning. Without the file, there are no records.

    This is not an error, because the metrics of the report do not need this file, and no stage can make it again.
    """
    path = Path(path)
    if not path.exists():
        return []
    records = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        record = _parse(line)
        if record is None:
            log.warning("%s:%d: malformed; the training curves do not have this line", path, number)
        else:
            records.append(record)
    return records


def curves(records: Sequence[Record]) -> list[Curve]:
    """The curves of all names except those of speed, in order of appearance."""
    per_epoch = next((record.step / record.epoch for record in records if record.ends_epoch), None)
    if per_epoch is None:
        return []
    found: dict[str, Curve] = {}
    for record in records:
        for name, value in record.values.items():
            if name not in SPEED:
                curve = found.setdefault(name, Curve(name, [], []))
                (curve.epochs if record.ends_epoch else curve.lines).append(Point(record.step / per_epoch, value))
    return list(found.values())


def _parse(line: str) -> Record | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    if not isinstance(found, dict) or not all(_is_count(found.get(name)) for name in ("step", "epoch")):
        return None
    values = {name: float(value) for name, value in found.items() if name not in PLACE and _is_number(value)}
    return Record(found["step"], found["epoch"], found.get("event") == EPOCH_END, values)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 < value < 1 << 63


def _is_number(value: Any) -> bool:
    """Whether a value can be drawn: a finite number. A comparison with nan is false."""
    return type(value) in (int, float) and abs(value) < 1e30
