"""Files of tensors. They appear whole or not at all, and reading them runs no code."""

import errno
import zipfile
from pathlib import Path
from typing import Any

import torch

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.files import replacing


def save_tensors(path: str | Path, record: dict[str, Any]) -> None:
    """Write tensors and plain values with `torch.save`. The file appears whole or not at all.

    Raises:
        OSError: naming the path, if the disk is full or read-only. An old file stays as it was.
    """
    with replacing(path) as file:
        try:
            torch.save(record, file)
        except RuntimeError as error:  # torch's zip writer raises this instead of the OSError
            code = getattr(error.__context__, "errno", None) or errno.ENOSPC
            raise OSError(code, "cannot be written (disk full?)") from error


def load_tensors(path: str | Path) -> dict[str, Any]:
    """Read a file of `save_tensors` onto the CPU, with `weights_only`.

    Raises:
        InputError: if the file is missing, cut, damaged, or holds anything but tensors and plain values.
    """
    try:
        _check_sums(path)
        record = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except Exception as error:  # reading unknown bytes can fail in any way
        if getattr(error, "filename", None):  # an error of the system, such as a missing permission
            raise
        cause = str(error).partition("\n")[0]
        raise InputError(f"{path}: cut or not a file of this program ({type(error).__name__}: {cause})") from error
    if not isinstance(record, dict):
        raise InputError(f"{path}: not a file of this program")
    return record


def _check_sums(path: str | Path) -> None:
    """Check the CRCs that torch.save writes and torch.load ignores."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"the checksum of {damaged} is wrong: the file was damaged after it was written")
