"""Digests of files, remembered by size, times and inode, so that what nobody touched is not read again."""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from wespeaker_lite.core.files import write_text

_RECENT_NS = 100_000_000  # a file may change within one tick of the file system's clock: its times then stay the same


class Digests:
    """SHA-256 of files, as text; `cache` is the file that remembers them, a stamp's name with `.seen`.

    A file is the one that was read before if size, times of change (of content and of inode) and inode are the same.
    A cache beside the file, or in the folder above, is believed too: the job that wrote an ark leaves one of it.
    """

    def __init__(self, cache: str | Path) -> None:
        self.cache = Path(cache)
        self._known = _read(self.cache)
        self._used: dict[str, str] = {}

    def of(self, path: str | Path) -> str:
        """The digest of a file, which is read only if it is new or has changed."""
        state = _state(path)
        digest = self._known.get(state) or self._used.get(state)
        if digest is None:
            digest = next((known[state] for known in map(_read, beside(path, "*.seen")) if state in known), None)
        if digest is None:
            return self.read(path)
        self._used[state] = digest
        return digest

    def read(self, path: str | Path) -> str:
        """The digest of a file, which is read whatever is known of it."""
        started, state = time.time_ns(), _state(path)
        self._known.pop(state, None)
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        status = os.stat(path)
        if _state(path) == state and started - max(status.st_mtime_ns, status.st_ctime_ns) > _RECENT_NS:
            self._used[state] = digest
        return digest

    def agree(self, path: str | Path, digest: str) -> bool:
        """Whether a file has this digest; what a cache says against it is not believed."""
        return self.of(path) == digest or self.read(path) == digest

    def add(self, path: str | Path, digest: str) -> None:
        """Remember the digest of a file that has just been written."""
        self._used[_state(path)] = digest

    def save(self, forget: bool = False) -> None:
        """Write the cache, if there is something new; `forget` whatever was not asked for since it was read."""
        if forget or self._used.items() - self._known.items():
            known = self._used if forget else self._known | self._used
            with contextlib.suppress(OSError):  # data of another user, or another run that writes it too
                write_text(self.cache, json.dumps(known, indent=0) + "\n")


def beside(path: str | Path, pattern: str) -> Iterator[Path]:
    """The files of a pattern in the folder of a file, and in the folder above."""
    for folder in (Path(path).parent, Path(path).parent.parent):
        yield from sorted(folder.glob(pattern))


def _state(path: str | Path) -> str:
    status = os.stat(path)
    return f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"


def _read(cache: Path) -> dict[str, str]:
    try:
        return {str(state): str(digest) for state, digest in json.loads(cache.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError):
        return {}
