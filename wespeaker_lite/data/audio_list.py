"""What audio a data directory names, so that a stage can tell when a file was replaced under its name."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from wespeaker_lite.data.tables import iter_table, write_lines

_WORD = re.compile(r"'([^']*)'|(\S+)")


def list_audio(directory: str | Path) -> None:
    """Write `audio.list`: the entries of wav.scp, each with its file's size and time of change; of a pipe, those of the
    files that its command names by a path."""
    directory = Path(directory)
    write_lines(directory / "audio.list", _lines(directory / "wav.scp"))


def _lines(scp: Path) -> Iterator[str]:
    for _, key, value in iter_table(scp):
        yield " ".join([key, value, *map(_state, _files(value))]) + "\n"


def _files(value: str) -> list[str]:
    if not value.endswith("|"):
        return [value]
    _, *words = (quoted or plain for quoted, plain in _WORD.findall(value))
    return [word for word in words if "/" in word]


def _state(path: str) -> str:
    try:
        status = os.stat(path)
    except OSError:
        return "-"
    return f"{status.st_size} {status.st_mtime_ns}"
