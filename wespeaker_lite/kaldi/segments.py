"""Kaldi's `segments` files."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.kaldi.tables import (
    fix_command,
    iter_table,
)

SECONDS = r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"  # float() would also accept 1_0, nan, and digits of other scripts
SEGMENT = re.compile(rf"(\S+)\s+({SECONDS})\s+({SECONDS})", re.ASCII)


class Segment(NamedTuple):
    """A line of a segments file; times in seconds."""

    line: int
    utterance: str
    recording: str
    start: float
    end: float


def iter_segments(path: str | Path) -> Iterator[Segment]:
    """Yield the segments of a segments file.

    Raises:
        InputError: as `iter_table`, and naming the line, if a time is no number or the end is not after the start.
    """
    for number, utterance, value in iter_table(path):
        segment = parse_segment(number, utterance, value)
        if segment is None:
            raise InputError(
                f"{path}:{number}: expected utterance, recording, and a start and a later end in seconds, "
                f"found {utterance!r} {value!r}; run: {fix_command(Path(path).parent)}"
            )
        yield segment


def parse_segment(number: int, utterance: str, value: str) -> Segment | None:
    """Parse a line of a segments file; None if it is malformed."""
    fields = SEGMENT.fullmatch(value)
    if not fields:
        return None
    segment = Segment(number, utterance, fields[1], float(fields[2]), float(fields[3]))
    return segment if segment.start < segment.end < float("inf") else None
