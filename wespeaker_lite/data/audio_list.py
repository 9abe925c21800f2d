"""What audio a data directory names, so that a stage can tell when a file was replaced under its name."""

import os
from collections.abc import Iterator
from pathlib import Path

from wespeaker_lite.data.tables import iter_table, write_lines


def list_audio(directory: str | Path) -> None:
    """Write `audio.list`: the entries of wav.scp, each with its file's size and time of change; a pipe as it is."""
    directory = Path(directory)
    write_lines(directory / "audio.list", _lines(directory / "wav.scp"))


def _lines(scp: Path) -> Iterator[str]:
    for _, key, value in iter_table(scp):
        if value.endswith("|") or not os.path.exists(value):
            yield f"{key} {value}\n"
        else:
            status = os.stat(value)
            yield f"{key} {value} {status.st_size} {status.st_mtime_ns}\n"
