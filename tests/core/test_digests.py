"""Digests of files: a file is read once, and again only if it may have changed."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from wespeaker_lite.core.digests import Digests


@pytest.fixture
def ark(tmp_path: Path) -> Path:
    """A file that was written some time ago."""
    path = tmp_path / "fbank/feats.1.ark"
    path.parent.mkdir()
    path.write_bytes(b"matrix")
    time.sleep(0.15)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def in_place(path: Path, content: bytes) -> None:
    """Write other bytes of the same length into a file, and keep its modification time."""
    before = path.stat()
    with open(path, "r+b") as file:
        file.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_an_unchanged_file_is_not_read_again(tmp_path: Path, ark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Digests(tmp_path / ".x.stamp.seen")
    assert seen.of(ark) == sha256(ark)
    seen.save()
    monkeypatch.setattr(Digests, "read", lambda *_: "read again")
    assert Digests(tmp_path / ".x.stamp.seen").of(ark) == sha256(ark)
    assert Digests(tmp_path / "another.seen").of(ark) == sha256(ark), "the cache of a parent folder is not used"
    for cache in ("", "[]", "{"):
        (tmp_path / ".x.stamp.seen").write_text(cache)
        assert Digests(tmp_path / ".x.stamp.seen").of(ark) == "read again"


def test_a_change_of_the_same_size_and_time_is_seen(tmp_path: Path, ark: Path) -> None:
    seen = Digests(tmp_path / "x.seen")
    before = seen.of(ark)
    seen.save()
    in_place(ark, b"matriX")
    assert Digests(tmp_path / "x.seen").of(ark) == sha256(ark) != before


def test_a_file_that_was_just_written_is_not_cached(tmp_path: Path) -> None:
    """A second change within one tick of the clock does not change the times."""
    path = tmp_path / "a"
    for content in (b"one", b"two", b"six"):
        path.write_bytes(content)
        seen = Digests(tmp_path / "x.seen")
        assert seen.of(path) == sha256(path)
        seen.save()


def test_a_wrong_cache_is_not_trusted(tmp_path: Path, ark: Path) -> None:
    seen = Digests(tmp_path / "x.seen")
    seen.add(ark, "0" * 64)
    assert seen.agree(ark, sha256(ark))
    assert not seen.agree(ark, "1" * 64)


def test_a_cache_drops_files_that_are_not_requested(tmp_path: Path, ark: Path) -> None:
    first = Digests(tmp_path / "x.seen")
    first.of(ark)
    first.save()
    later = Digests(tmp_path / "x.seen")
    later.save()
    assert len((tmp_path / "x.seen").read_text().splitlines()) == 3
    later.save(forget=True)
    assert (tmp_path / "x.seen").read_text() == "{}\n"
