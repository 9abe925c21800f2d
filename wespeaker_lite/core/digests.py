"""SHA-256 digests of files, cached by size, times and inode, so that unchanged files are not read again."""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from wespeaker_lite.core.files import write_text

_RECENT_NS = 100_000_000  # a file may change within one tick of the file system's clock without new times


class Digests:
    """SHA-256 digests as text. They are cached in the file `cache`, a stamp's name with `.seen`.

    A file counts as unchanged if its size, its inode and both times of change (content and inode) are the same. Caches
    in the file's folder and the folder above are used too: the job that writes an ark leaves one.
    """

    def __init__(self, cache: str | Path) -> None:
        self.cache = Path(cache)
        self._known = _read(self.cache)
        self._used: dict[str, str] = {}

    def of(self, path: str | Path) -> str:
        """The digest of a file. The file is read only if it is new or has changed."""
        state = _state(path)
        digest = self._known.get(state) or self._used.get(state)
        if digest is None:
            digest = next((known[state] for known in map(_read, beside(path, "*.seen")) if state in known), None)
        if digest is None:
            return self.read(path)
        self._used[state] = digest
        return digest

    def read(self, path: str | Path) -> str:
        """The digest of a file, without the cache."""
        started, state = time.time_ns(), _state(path)
        self._known.pop(state, None)
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        status = os.stat(path)
        if _state(path) == state and started - max(status.st_mtime_ns, status.st_ctime_ns) > _RECENT_NS:
            self._used[state] = digest
        return digest

    def agree(self, path: str | Path, digest: str) -> bool:
        """Whether a file has this digest. If the cache says no, the file is read."""
        return self.of(path) == digest or self.read(path) == digest

    def add(self, path: str | Path, digest: str) -> None:
        """Add the digest of a file that has just been written."""
        self._used[_state(path)] = digest

    def save(self, forget: bool = False) -> None:
        """Write the cache if it has new digests. `forget` drops digests that were not used since it was read."""
        if forget or self._used.items() - self._known.items():
            known = self._used if forget else self._known | self._used
            with contextlib.suppress(OSError):  # the data belong to another user, or another run writes the cache too
                write_text(self.cache, json.dumps(known, indent=0) + "\n")


def beside(path: str | Path, pattern: str) -> Iterator[Path]:
    """The files that match a pattern in the folder of `path` and in the folder above."""
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
