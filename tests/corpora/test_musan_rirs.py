"""MUSAN and RIRS_NOISES in their published layout."""

import shutil
from pathlib import Path

import pytest

from tests.voxceleb_tree import make_musan, make_rirs
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.corpora.musan_rirs import read_musan, read_rirs


def test_musan_is_found_by_kind(tmp_path: Path) -> None:
    musan = make_musan(tmp_path)
    found = read_musan(musan)
    assert {kind: len(paths) for kind, paths in found.items()} == {"noise": 2, "music": 1, "speech": 2}
    assert all(path.is_absolute() and path.suffix == ".wav" for paths in found.values() for path in paths)
    assert [path.parent.name for path in found["noise"]] == ["free-sound", "sound-bible"]
    assert read_musan(tmp_path) == found


def test_rirs_are_the_simulated_ones(tmp_path: Path) -> None:
    rirs = make_rirs(tmp_path)
    found = read_rirs(rirs)
    assert [f"{path.parent.parent.name}/{path.name}" for path in found] == [
        f"{size}room/Room001-{number:05d}.wav" for size in ("small", "medium", "large") for number in (1, 2)
    ]
    assert read_rirs(tmp_path) == found


@pytest.mark.parametrize(
    ("place", "content", "said"),
    [
        ("music/fma/music-fma-0000.wav", b"", r"music-fma-0000.wav: empty \(0 bytes\) \(1 of 1 files in"),
        ("noise/free-sound/noise-free-sound-0000.wav", b"RIFF", r"noise-free-sound-0000.wav: cannot be decoded"),
        ("speech/us-gov/x.mp4", b"x", r"x.mp4: .mp4 cannot be read"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, place: str, content: bytes, said: str) -> None:
    (make_musan(tmp_path) / place).write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_musan(tmp_path)


def test_an_incomplete_corpus_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is not musan: expected in it noise/, music/, speech/"):
        read_musan(tmp_path)
    shutil.rmtree(make_musan(tmp_path) / "speech")
    assert list(read_musan(tmp_path)) == ["noise", "music"]  # whoever needs speech says so
    (tmp_path / "musan/speech").mkdir()
    with pytest.raises(InputError, match=r"musan/speech: no audio file in it"):
        read_musan(tmp_path)
    with pytest.raises(InputError, match=r"is not RIRS_NOISES: expected in it simulated_rirs/"):
        read_rirs(tmp_path)
    shutil.rmtree(make_rirs(tmp_path) / "simulated_rirs/largeroom")
    with pytest.raises(InputError, match=r"simulated_rirs has no largeroom/"):
        read_rirs(tmp_path)
