"""Stamps: a stage is done only if it was made from these very inputs and its outputs still lie there."""

import os
from pathlib import Path

import pytest

from wespeaker_lite import stamps
from wespeaker_lite.errors import InputError


@pytest.fixture
def stage(tmp_path: Path) -> dict:
    """A stage with every kind of input, which has been done."""
    (tmp_path / "wav.scp").write_text("a a.wav\n")
    (tmp_path / "tree/s").mkdir(parents=True)
    (tmp_path / "tree/s/a.wav").write_text("RIFF")
    (tmp_path / "config.yaml").write_text("train: {epochs: 3}\nscoring: {top_n: 5}\n")
    (tmp_path / "out.ark").write_text("feats")
    stage = {
        "files": (str(tmp_path / "wav.scp"),), "trees": (str(tmp_path / "tree"),),
        "config": str(tmp_path / "config.yaml"), "sections": ("train",), "words": ("1.0",),
    }  # fmt: skip
    stamps.write(tmp_path / "stamp", stamps.Inputs(**stage), [str(tmp_path / "out.ark")])
    return stage


def fresh(tmp_path: Path, stage: dict, **changes: object) -> bool:
    return stamps.is_fresh(tmp_path / "stamp", stamps.Inputs(**{**stage, **changes}))


def test_what_is_done_is_fresh(tmp_path: Path, stage: dict) -> None:
    assert fresh(tmp_path, stage)
    assert not stamps.is_fresh(tmp_path / "another", stamps.Inputs(**stage))


def test_any_changed_input_or_output_makes_it_stale(tmp_path: Path, stage: dict) -> None:
    changes = {
        "wav.scp": "a b.wav\n", "tree/s/b.wav": "RIFF", "config.yaml": "train: {epochs: 4}\nscoring: {top_n: 5}\n",
        "out.ark": "fea", "stamp": "{", "tree/s/a.wav": "",
    }  # fmt: skip
    for name, text in changes.items():
        path = tmp_path / name
        before = (path.read_text(), path.stat()) if path.exists() else None
        path.write_text(text)
        assert not fresh(tmp_path, stage), name
        path.unlink()
        if before:
            path.write_text(before[0])
            os.utime(path, ns=(before[1].st_atime_ns, before[1].st_mtime_ns))
        assert fresh(tmp_path, stage), name
    assert not fresh(tmp_path, stage, words=("0.9",))
    assert not fresh(tmp_path, stage, words=())
    (tmp_path / "out.ark").unlink()
    assert not fresh(tmp_path, stage)


def test_a_tree_is_followed_through_links_and_knows_when_a_file_was_replaced(tmp_path: Path, stage: dict) -> None:
    wav = tmp_path / "tree/s/a.wav"
    later = wav.stat().st_mtime_ns + 10**9
    wav.write_text("RIFX")
    os.utime(wav, ns=(later, later))
    assert not fresh(tmp_path, stage)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "tree/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/circle").symlink_to(tmp_path / "tree/link")
    stamps.write(tmp_path / "stamp", stamps.Inputs(**stage), [str(tmp_path / "out.ark")])
    assert fresh(tmp_path, stage)
    (tmp_path / "elsewhere/b.wav").write_text("RIFF")
    assert not fresh(tmp_path, stage)


def test_what_it_does_not_depend_on_may_change(tmp_path: Path, stage: dict) -> None:
    (tmp_path / "config.yaml").write_text("scoring: {top_n: 6}\ntrain:\n  epochs: 3\n")
    (tmp_path / "wav.scp").touch()
    assert fresh(tmp_path, stage)


def test_the_stamp_tells_what_changed(tmp_path: Path, stage: dict, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    (tmp_path / "wav.scp").write_text("b b.wav\n")
    fresh(tmp_path, stage)
    assert f"{tmp_path}/wav.scp changed" in caplog.text


def test_made_again_the_stamp_is_the_same_text(tmp_path: Path, stage: dict) -> None:
    text = (tmp_path / "stamp").read_text()
    stamps.write(tmp_path / "stamp", stamps.Inputs(**stage), [str(tmp_path / "out.ark")])
    assert (tmp_path / "stamp").read_text() == text


def test_missing_inputs_and_outputs_are_named(tmp_path: Path, stage: dict) -> None:
    (tmp_path / "wav.scp").unlink()
    with pytest.raises(InputError, match=r"wav.scp is not there: run stage 1 first"):
        fresh(tmp_path, stage)
    (tmp_path / "wav.scp").write_text("a a.wav\n")
    (tmp_path / "empty").touch()
    for name in ("empty", "nowhere"):
        with pytest.raises(InputError, match=f"{name} was to be made"):
            stamps.write(tmp_path / "stamp", stamps.Inputs(**stage), [str(tmp_path / name)])


def test_of_folders_only_the_folders_are_looked_at(tmp_path: Path) -> None:
    inside = tmp_path / "vox/dev/aac/id00012"
    for video in ("a", "b"):
        (inside / video).mkdir(parents=True)
        (inside / video / "00001.m4a").write_text("audio")
    (tmp_path / "linked/c").mkdir(parents=True)
    (tmp_path / "vox/test").mkdir()
    (tmp_path / "vox/test/id00017").symlink_to(tmp_path / "linked")
    (tmp_path / "vox/round").symlink_to(tmp_path / "vox")

    def is_fresh() -> bool:
        fresh = stamps.is_fresh(tmp_path / "stamp", inputs)
        stamps.write(tmp_path / "stamp", inputs, [])
        return fresh

    inputs = stamps.Inputs(folders=(str(tmp_path / "vox"),))
    assert not is_fresh()
    assert is_fresh()
    (inside / "b/00001.m4a").write_text("other")  # in its place: the limit of this look
    assert is_fresh()
    for change in (
        lambda: (inside / "b/00002.m4a").write_text("audio"),
        lambda: (inside / "a/00001.m4a").unlink(),
        lambda: (inside / "d").mkdir(),
        lambda: (tmp_path / "linked/c/00001.m4a").write_text("audio"),
        lambda: (tmp_path / "linked/e").mkdir(),
    ):
        change()
        assert not is_fresh()
        assert is_fresh()
    with pytest.raises(InputError, match="nowhere: no such folder"):
        stamps.is_fresh(tmp_path / "stamp", stamps.Inputs(folders=(str(tmp_path / "nowhere"),)))
