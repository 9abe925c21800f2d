"""Files that appear whole or not at all, and JSON."""

import glob
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from wespeaker_lite.core.errors import InputError


def write_text(path: str | Path, text: str) -> None:
    """Write a text file. A reader sees the old file or the new one, never a part."""
    write_lines(path, [text])


def write_lines(path: str | Path, lines: Iterable[str | bytes | memoryview]) -> None:
    """Write lines (with newlines), or blocks of lines as bytes. The file appears whole or not at all."""
    with replacing(path) as file:
        file.writelines(line.encode() if isinstance(line, str) else line for line in lines)


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Add `path` to an OSError that names no file, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`. It replaces `path` if the block succeeds, and is deleted if not.

    Raises:
        OSError: naming `path`, if the disk is full or the folder cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):  # by a process killed while writing
            left.unlink(missing_ok=True)
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename not in (None, str(temporary)):
            raise  # an error of another file, from inside the block
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        InputError: if it holds anything else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected one JSON object")
    return value
