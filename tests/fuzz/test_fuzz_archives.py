"""Damaged or malicious archives of corpora: they are unpacked into their folder, or refused and removed."""

import io
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import given

from tests.fuzz.common import damaged, examples, outcome
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.corpora.download import unpack


def archive(*members: tarfile.TarInfo) -> bytes:
    """A tar with a folder, one file in it, and these members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member in (entry("corpus/a", size=3), *members):
            tar.addfile(member, io.BytesIO(b"abc"))
    return buffer.getvalue()


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0, **pax: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size, member.pax_headers = kind, link, size, pax
    return member


def listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


GOOD = archive(entry("corpus/" + "d" * 120 + "/b", size=3, comment="é"))


@examples(60)
@given(content=damaged(GOOD.rstrip(b"\0") + bytes(1024)))
def test_a_damaged_archive_stays_in_its_folder(folder: Path, content: bytes) -> None:
    place = folder / "damaged"
    place.mkdir(exist_ok=True)
    (place / "a.tar").write_bytes(content)
    before = listing(folder)
    outcome(lambda: unpack(place / "a.tar", place / "corpus"))
    for name in sorted(listing(folder) - before, reverse=True):
        assert name.startswith("damaged/corpus")
        os.rmdir(folder / name) if (folder / name).is_dir() else os.unlink(folder / name)


HARMFUL = {
    "name up": [entry("corpus/../../up", size=3)],
    "link to a folder outside": [entry("corpus/in", tarfile.SYMTYPE, "../.."), entry("corpus/in/up", size=3)],
    "link within": [entry("corpus/in", tarfile.SYMTYPE, "a")],
    "absolute link": [entry("corpus/in", tarfile.SYMTYPE, "/etc/passwd")],
    "hard link outside": [entry("corpus/in", tarfile.LNKTYPE, "../precious")],
    "hard link within": [entry("corpus/in", tarfile.LNKTYPE, "corpus/a")],
    "device": [entry("corpus/null", tarfile.CHRTYPE)],
    "pipe": [entry("corpus/pipe", tarfile.FIFOTYPE)],
}


@pytest.mark.parametrize("kind", HARMFUL)
def test_only_files_and_folders_are_unpacked(tmp_path: Path, kind: str) -> None:
    (tmp_path / "precious").write_text("mine")
    (tmp_path / "in").mkdir()
    (tmp_path / "a.tar").write_bytes(archive(*HARMFUL[kind]))
    before = listing(tmp_path)
    with pytest.raises(InputError, match=r"a\.tar: cannot be unpacked: "):
        unpack(tmp_path / "a.tar", tmp_path / "in/corpus")
    assert listing(tmp_path) == before


def test_an_absolute_name_is_taken_as_one_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(archive(entry(f"/corpus{tmp_path}/outside", size=3)))
    unpack(tmp_path / "a.tar", tmp_path / "corpus")
    assert not (tmp_path / "outside").exists()
    assert (tmp_path / "corpus" / str(tmp_path)[1:] / "outside").read_bytes() == b"abc"
