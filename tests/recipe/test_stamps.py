"""Stamps: a stage is finished only if its inputs and outputs are the same as in its stamp."""

import os
from pathlib import Path

import pytest

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.recipe import stamps


@pytest.fixture
def stage(tmp_path: Path) -> dict:
    """A finished stage with every kind of input."""
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


def test_a_finished_stage_is_fresh(tmp_path: Path, stage: dict) -> None:
    assert fresh(tmp_path, stage)
    assert not stamps.is_fresh(tmp_path / "another", stamps.Inputs(**stage))


def test_any_changed_input_or_output_makes_it_stale(tmp_path: Path, stage: dict) -> None:
    changes = {
        "wav.scp": "a b.wav\n", "tree/s/b.wav": "RIFF", "config.yaml": "train: {epochs: 4}\nscoring: {top_n: 5}\n",
        "out.ark": "featS", "stamp": "{", "tree/s/a.wav": "",
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


@pytest.fixture
def chain(tmp_path: Path) -> dict[str, Path]:
    """The lists of stage 1, and the fbanks that stage 2 has made from one of them."""
    folder = tmp_path / "data/mini"
    paths = {"lists": folder / ".lists.stamp", "fbanks": folder / "test/.fbank.stamp"}
    paths |= {name: folder / name for name in ("test/utt2spk", "test/feats.ark", "trials/trials_O")}
    for name in list(paths)[2:]:
        paths[name].parent.mkdir(parents=True, exist_ok=True)
        paths[name].write_text(f"{name} one\n{name} two\n")
    utt2spk, ark, trials = map(str, list(paths.values())[2:])
    stamps.write(paths["lists"], stamps.Inputs(), [utt2spk], editable=[trials])
    stamps.write(paths["fbanks"], stamps.Inputs(files=(utt2spk,)), [ark, utt2spk])
    return paths


def damage(path: Path) -> None:
    """Flip a bit."""
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


@pytest.mark.parametrize("stamp", ["here", "not here"])
def test_inputs_are_compared_with_the_stamp_of_their_stage(chain: dict[str, Path], tmp_path: Path, stamp: str) -> None:
    ours = tmp_path / ".embed.stamp"
    current = stamps.Inputs(current=(str(chain["fbanks"]),))
    reading = stamps.Inputs(files=(str(chain["fbanks"]), str(chain["test/utt2spk"])))
    for inputs in (current, reading):
        stamps.write(ours, inputs, [])
        assert stamps.is_fresh(ours, inputs)
        if stamp == "not here":
            ours.unlink()
        whole = chain["test/feats.ark"].read_bytes()
        damage(chain["test/feats.ark"])
        with pytest.raises(InputError, match=r"feats.ark was damaged or changed after .*: run stage 2 again"):
            stamps.is_fresh(ours, inputs)
        chain["test/feats.ark"].unlink()
        with pytest.raises(InputError, match=r"feats.ark is missing or empty: run stage 2 again"):
            stamps.is_fresh(ours, inputs)
        chain["test/feats.ark"].write_bytes(whole)
        assert stamps.is_fresh(ours, inputs) == ours.exists()


def test_a_table_of_stage_1_is_made_again_by_stage_1(chain: dict[str, Path], tmp_path: Path) -> None:
    reading = stamps.Inputs(files=(str(chain["test/utt2spk"]),))
    assert stamps.is_fresh(chain["lists"], stamps.Inputs())
    damage(chain["test/utt2spk"])
    with pytest.raises(InputError, match=r"utt2spk was damaged or changed after .* run stage 1 again"):
        stamps.is_fresh(tmp_path / ".embed.stamp", reading)
    assert not stamps.is_fresh(chain["lists"], stamps.Inputs())


def test_a_later_stage_may_rewrite_a_table(chain: dict[str, Path]) -> None:
    utt2spk, ark = (str(chain[name]) for name in ("test/utt2spk", "test/feats.ark"))
    chain["test/utt2spk"].write_text("one that could be read\n")
    stamps.write(chain["fbanks"], stamps.Inputs(files=(utt2spk,)), [ark, utt2spk])
    assert stamps.is_fresh(chain["lists"], stamps.Inputs())
    damage(chain["test/utt2spk"])
    assert not stamps.is_fresh(chain["lists"], stamps.Inputs())


def test_a_stamp_older_than_its_inputs_is_not_current(chain: dict[str, Path], tmp_path: Path) -> None:
    """Stage 1 has run again, but stage 2 has not."""
    chain["test/utt2spk"].write_text("other utterances\n")
    stamps.write(chain["lists"], stamps.Inputs(), [str(chain["test/utt2spk"])])
    with pytest.raises(InputError, match=r"utt2spk has changed since .*fbank.stamp was made .*: run stage 2"):
        stamps.is_fresh(tmp_path / ".embed.stamp", stamps.Inputs(current=(str(chain["fbanks"]),)))


def test_an_edited_list_is_used_once_accepted(chain: dict[str, Path], tmp_path: Path) -> None:
    trials, reading = chain["trials/trials_O"], stamps.Inputs(files=(str(chain["trials/trials_O"]),))
    trials.write_text("fewer trials\n")
    for stamp, inputs in ((chain["lists"], stamps.Inputs()), (tmp_path / ".score.stamp", reading)):
        with pytest.raises(InputError, match=rf"accept {chain['lists']} --outputs {trials}; if not, remove it"):
            stamps.is_fresh(stamp, inputs)
    stamps.accept(chain["lists"], [str(trials)])
    assert stamps.is_fresh(chain["lists"], stamps.Inputs())
    assert not stamps.is_fresh(tmp_path / ".score.stamp", reading)
    trials.write_text("")
    assert not stamps.is_fresh(chain["lists"], stamps.Inputs()), "an empty list is not an edit of the user"
    with pytest.raises(InputError, match="has no output nowhere"):
        stamps.accept(chain["lists"], ["nowhere"])
    chain["lists"].write_text("{")
    with pytest.raises(InputError, match="cannot be read: run stage 1 again"):
        stamps.accept(chain["lists"], [str(trials)])


def test_an_old_stamp_without_digests_compares_sizes(tmp_path: Path, stage: dict) -> None:
    text = (tmp_path / "stamp").read_text()
    digest = stamps.read(tmp_path / "stamp").outputs[str(tmp_path / "out.ark")]
    (tmp_path / "stamp").write_text(text.replace(f'"{digest}"', "5"))
    assert fresh(tmp_path, stage)
    (tmp_path / "out.ark").write_text("fea")
    assert not fresh(tmp_path, stage)


def test_a_tree_follows_links_and_notices_replaced_files(tmp_path: Path, stage: dict) -> None:
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


def test_other_files_may_change(tmp_path: Path, stage: dict) -> None:
    (tmp_path / "config.yaml").write_text("scoring: {top_n: 6}\ntrain:\n  epochs: 3\n")
    (tmp_path / "wav.scp").touch()
    assert fresh(tmp_path, stage)


def test_the_stamp_shows_what_changed(tmp_path: Path, stage: dict, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    (tmp_path / "wav.scp").write_text("b b.wav\n")
    fresh(tmp_path, stage)
    assert f"{tmp_path}/wav.scp changed" in caplog.text


def test_an_equal_stage_writes_an_equal_stamp(tmp_path: Path, stage: dict) -> None:
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
        with pytest.raises(InputError, match=f"{name} was not made"):
            stamps.write(tmp_path / "stamp", stamps.Inputs(**stage), [str(tmp_path / name)])


def test_folders_compares_only_the_times_of_folders(tmp_path: Path) -> None:
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


def test_a_file_that_a_program_reads_by_hand_is_as_its_stage_left_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores, results, thresholds and exports: with the stamp beside them, from wherever and after a move."""
    monkeypatch.chdir(tmp_path)
    names = ["results.json", "scores/trials_O.cosine.score", "verify.json"]
    Path("exp/x/scores").mkdir(parents=True)
    for name in names:
        Path("exp/x", name).write_text("0.25\n")
    stamps.write("exp/x/.score.stamp", stamps.Inputs(), [f"exp/x/{name}" for name in names])
    Path("exp").rename("moved")
    monkeypatch.chdir("/")
    for name in names:
        path = tmp_path / "moved/x" / name
        stamps.check_made(path)
        path.write_text("0.24\n")
        with pytest.raises(InputError, match=rf"{name} was damaged or changed after .*: run stage 6 again"):
            stamps.check_made(path)
    (tmp_path / "moved/x/.score.stamp").unlink()
    stamps.check_made(tmp_path / "moved/x/results.json")
