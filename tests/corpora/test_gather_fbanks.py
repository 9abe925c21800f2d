"""Gathering the outputs of fbank jobs."""

from pathlib import Path

import pytest

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.corpora.augmented_copies import Copy
from wespeaker_lite.corpora.gather_fbanks import gather
from wespeaker_lite.kaldi.tables import read_table, write_table


def write_parts(folder: Path, prefix: str = "", suffix: str = "", number: int = 12) -> None:
    """Write the outputs of twelve jobs with one utterance each, to test that 10 comes after 9."""
    for job in range(1, number + 1):
        key = f"{prefix}s-{job:02d}{suffix}"
        write_table(folder / f"feats.{job}.scp", {key: f"/x/feats.{job}.ark:5"})
        (folder / f"feats.{job}.sum").write_text(f"{job:x}\n")
        write_table(folder / f"feats.{job}.utt2num_frames", {key: job})
        write_table(folder / f"feats.{job}.utt2dur", {key: "1.5"})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    keys = {f"s-{job:02d}": "s" for job in range(1, 13)}
    write_table(tmp_path / "set/utt2spk", keys)
    write_table(tmp_path / "set/spk2utt", {"s": " ".join(keys)})
    write_table(tmp_path / "set/wav.scp", {key: f"{key}.wav" for key in keys})
    return tmp_path / "set"


def test_all_parts_are_gathered(source: Path, tmp_path: Path) -> None:
    write_parts(tmp_path / "parts")
    gather(source, tmp_path / "parts", source)
    frames = read_table(source / "utt2num_frames")
    assert frames == {f"s-{job:02d}": str(job) for job in range(1, 13)}
    assert read_table(source / "feats.scp")["s-10"] == "/x/feats.10.ark:5"
    assert int((source / "feats.sum").read_text(), 16) == sum(range(1, 13))


def test_a_lost_part_is_an_error(source: Path, tmp_path: Path) -> None:
    write_parts(tmp_path / "parts")
    (tmp_path / "parts/feats.7.scp").unlink()
    with pytest.raises(InputError, match=r"feats.scp of the parts lacks 1 of 12 utterances: \['s-07'\]"):
        gather(source, tmp_path / "parts", source)
    assert not (source / "feats.scp").exists()


def test_utterances_that_jobs_left_out_are_dropped(source: Path, tmp_path: Path) -> None:
    write_parts(tmp_path / "parts", number=11)
    (tmp_path / "parts/feats.11.bad").write_text("s-12 s-12.wav: 0 bytes\n")
    gather(source, tmp_path / "parts", source)
    for table in ("feats.scp", "wav.scp", "utt2spk", "utt2dur"):
        assert "s-12" not in read_table(source / table)
        assert len(read_table(source / table)) == 11


def test_a_speed_makes_new_speakers(source: Path, tmp_path: Path) -> None:
    write_parts(tmp_path / "parts", "sp0.9-")
    gather(source, tmp_path / "parts", tmp_path / "slow", Copy(0.9))
    assert set(read_table(tmp_path / "slow/utt2spk").values()) == {"sp0.9-s"}
    assert read_table(tmp_path / "slow/spk2utt")["sp0.9-s"].split()[0] == "sp0.9-s-01"
    assert "s-01" in read_table(source / "utt2spk")


def test_a_noisy_copy_has_new_ids_and_the_same_speakers(source: Path, tmp_path: Path) -> None:
    write_parts(tmp_path / "parts", suffix="-noise", number=11)
    (tmp_path / "parts/feats.11.bad").write_text("s-12 s-12.wav: 0 bytes\n")
    gather(source, tmp_path / "parts", tmp_path / "noisy", Copy(kind="noise"))
    utt2spk = read_table(tmp_path / "noisy/utt2spk")
    assert utt2spk == {f"s-{job:02d}-noise": "s" for job in range(1, 12)}
    assert utt2spk.keys() == read_table(tmp_path / "noisy/feats.scp").keys()


def test_what_is_left_out_stays_listed_until_it_is_read(source: Path, tmp_path: Path) -> None:
    write_parts(tmp_path / "parts", number=11)
    (tmp_path / "parts/feats.12.bad").write_text("s-12 no audio in it\n")
    gather(source, tmp_path / "parts", source)
    assert "s-12" not in read_table(source / "utt2spk")
    assert (source / "left_out").read_text() == "s-12\n"
    (tmp_path / "parts/feats.12.bad").unlink()
    gather(source, tmp_path / "parts", source)  # with another config: the jobs are not given s-12 again
    assert (source / "left_out").read_text() == "s-12\n"
    write_parts(tmp_path / "parts")
    write_table(source / "utt2spk", {f"s-{job:02d}": "s" for job in range(1, 13)})  # as stage 1 makes it
    gather(source, tmp_path / "parts", source)
    assert not (source / "left_out").exists()


@pytest.mark.parametrize(("kind", "end"), [("", ""), ("noise", "-noise")])
def test_copies_of_unlabelled_utterances_are_unlabelled(source: Path, tmp_path: Path, kind: str, end: str) -> None:
    utt2spk = read_table(source / "utt2spk") | {"s-12": "s-12"}
    write_table(source / "utt2spk", utt2spk)
    write_table(source / "spk2unlabelled", {"s-12": "yes"})
    write_parts(tmp_path / "parts", "sp0.9-", end)
    gather(source, tmp_path / "parts", tmp_path / "out", Copy(speed=0.9, kind=kind))
    assert read_table(tmp_path / "out/spk2unlabelled") == {"sp0.9-s-12": "yes"}
    assert read_table(tmp_path / "out/utt2spk")[f"sp0.9-s-12{end}"] == "sp0.9-s-12"
    (source / "spk2unlabelled").unlink()
    gather(source, tmp_path / "parts", tmp_path / "out", Copy(speed=0.9, kind=kind))
    assert not (tmp_path / "out/spk2unlabelled").exists()
