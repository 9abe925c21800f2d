"""The audio files of a data directory, with size and time, so that a stage notices when one was replaced."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.files import write_lines
from wespeaker_lite.kaldi.tables import iter_table

_WORD = re.compile(r"'([^']*)'|(\S+)")


def iter_audio(scp: str | Path, pipes: bool = True) -> Iterator[tuple[int, str, str]]:
    """Yield line number, key and value of every entry of a wav.scp: a path, or a `command |` that outputs audio.

    Raises:
        InputError: as `iter_table`; without `pipes`, naming file and line of the first command.
    """
    for number, key, value in iter_table(scp):
        if not pipes and value.endswith("|"):
            raise InputError(
                f"{scp}:{number}: {key!r} is a command, which --no-pipes forbids: {value}; have it make files first "
                "(of VoxCeleb's m4a: VOXCELEB_DECODE=flac)"
            )
        yield number, key, value


def list_audio(directory: str | Path, pipes: bool = True) -> None:
    """Write `audio.list`: the entries of wav.scp, each with the size and the modification time of its file. For a pipe,
    they are those of the files whose paths are in its command.

    Raises:
        InputError: as `iter_audio`.
    """
    directory = Path(directory)
    write_lines(directory / "audio.list", _lines(directory / "wav.scp", pipes))


def _lines(scp: Path, pipes: bool) -> Iterator[str]:
    for _, key, value in iter_audio(scp, pipes):
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
