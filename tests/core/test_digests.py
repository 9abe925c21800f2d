"""Digests of files: read once, and again whenever a file may have changed."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from wespeaker_lite.core.digests import Digests


@pytest.fixture
def ark(tmp_path: Path) -> Path:
    """A file that was written a while ago."""
    path = tmp_path / "fbank/feats.1.ark"
    path.parent.mkdir()
    path.write_bytes(b"matrix")
    time.sleep(0.15)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def in_place(path: Path, content: bytes) -> None:
    """Other bytes of the same length in the same file, with the time of change that it had."""
    before = path.stat()
    with open(path, "r+b") as file:
        file.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_an_untouched_file_is_not_read_again(tmp_path: Path, ark: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Digests(tmp_path / ".x.stamp.seen")
    assert seen.of(ark) == sha256(ark)
    seen.save()
    monkeypatch.setattr(Digests, "read", lambda *_: "read again")
    assert Digests(tmp_path / ".x.stamp.seen").of(ark) == sha256(ark)
    assert Digests(tmp_path / "another.seen").of(ark) == sha256(ark), "a cache above the file's folder serves too"
    for cache in ("", "[]", "{"):
        (tmp_path / ".x.stamp.seen").write_text(cache)
        assert Digests(tmp_path / ".x.stamp.seen").of(ark) == "read again"


def test_a_change_of_the_same_size_and_time_is_seen(tmp_path: Path, ark: Path) -> None:
    seen = Digests(tmp_path / "x.seen")
    before = seen.of(ark)
    seen.save()
    in_place(ark, b"matriX")
    assert Digests(tmp_path / "x.seen").of(ark) == sha256(ark) != before


def test_what_was_just_written_is_not_yet_remembered(tmp_path: Path) -> None:
    """Within a tick of the clock a second change leaves the times as they are."""
    path = tmp_path / "a"
    for content in (b"one", b"two", b"six"):
        path.write_bytes(content)
        seen = Digests(tmp_path / "x.seen")
        assert seen.of(path) == sha256(path)
        seen.save()


def test_a_wrong_cache_is_not_believed(tmp_path: Path, ark: Path) -> None:
    seen = Digests(tmp_path / "x.seen")
    seen.add(ark, "0" * 64)
    assert seen.agree(ark, sha256(ark))
    assert not seen.agree(ark, "1" * 64)


def test_a_cache_forgets_what_is_not_asked_for(tmp_path: Path, ark: Path) -> None:
    first = Digests(tmp_path / "x.seen")
    first.of(ark)
    first.save()
    later = Digests(tmp_path / "x.seen")
    later.save()
    assert len((tmp_path / "x.seen").read_text().splitlines()) == 3
    later.save(forget=True)
    assert (tmp_path / "x.seen").read_text() == "{}\n"
