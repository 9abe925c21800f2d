"""The audio files of a folder."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from wespeaker_lite.core.errors import InputError

READABLE = (".wav", ".flac", ".ogg", ".opus", ".mp3")
UNREADABLE = (".m4a", ".aac", ".mp4", ".wma", ".sph", ".amr")  # audio formats that are an error, not ignored


def audio_entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """The audio files and the folders in a folder, without hidden ones, in byte order."""
    files, folders = [], []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: os.fsencode(entry.name)):
            if entry.name.startswith("."):
                continue
            if not entry.name.isprintable():
                raise InputError(f"{os.fsencode(entry.path)!r}: the name cannot be part of an id; rename it")
            if entry.is_dir():
                folders.append(Path(entry.path))
            elif is_audio(entry.path):
                files.append(Path(entry.path))
    return files, folders


def is_audio(path: str | Path) -> bool:
    """Whether a file name has the suffix of a readable audio format.

    Raises:
        InputError: for an audio format that cannot be read.
    """
    suffix = os.path.splitext(path)[1].lower()
    if suffix in UNREADABLE:
        raise InputError(f"{path}: {suffix} cannot be read; convert it (e.g. to flac), or pipe it in a wav.scp")
    return suffix in READABLE


def check_audio(wavs: Mapping[str, str]) -> None:
    """Check that no file of a wav.scp is empty.

    Raises:
        InputError: naming the first empty file.
    """
    bad = [path for path in wavs.values() if not path.endswith("|") and not os.path.getsize(path)]
    if bad:
        raise InputError(f"{bad[0]}: 0 bytes ({len(bad)} of {len(wavs)} audio files are empty); replace or remove them")


def audio_below(folder: Path) -> Iterator[Path]:
    """Yield the audio files in a folder and its subfolders, without hidden ones.

    Raises:
        InputError: naming a file of a format that cannot be read, or with an unprintable name.
    """
    files, folders = audio_entries(folder)
    yield from files
    for inner in folders:
        yield from audio_below(inner)
