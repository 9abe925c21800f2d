"""The program that computes fbanks."""

import logging
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.limits import little_memory
from wespeaker_lite.audio.fbank import FbankConfig, fbank
from wespeaker_lite.audio.speed import speed_perturb
from wespeaker_lite.bin import make_fbank
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.corpora.augmented_copies import Copy
from wespeaker_lite.corpora.fbank_job import FbankJob, make_fbanks
from wespeaker_lite.kaldi.arks import read_array, read_scp
from wespeaker_lite.kaldi.tables import read_table, write_table

LENGTHS = {"a-1": 16000, "a-2": 24000, "b-1": 8000}


def samples_of(key: str) -> np.ndarray:
    return np.random.default_rng(LENGTHS[key]).normal(0, 0.1, LENGTHS[key]).astype(np.float32)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    for key in LENGTHS:
        soundfile.write(tmp_path / f"{key}.wav", samples_of(key), 16000, subtype="FLOAT")
    write_table(tmp_path / "wav.scp", {key: tmp_path / f"{key}.wav" for key in LENGTHS})
    return tmp_path


def run(repository: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wespeaker_lite.bin.make_fbank", *map(str, words)]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)


def outputs(prefix: Path) -> list[str]:
    return sorted(path.name for path in prefix.parent.glob("*")) if prefix.parent.exists() else []


def test_features_frames_and_durations_are_written(directory: Path, repository: Path) -> None:
    prefix = directory / "fbank" / "feats.1"
    (directory / "config.yaml").write_text("features: {num_mels: 40, window: hamming}\nseed: 1\n")
    done = run(repository, "--data", directory, "--out", prefix, "--config", directory / "config.yaml")
    assert done.returncode == 0, done.stderr
    assert "3 utterances, 0.00 hours" in done.stderr
    assert "real-time factor" in done.stderr
    assert outputs(prefix) == [f"feats.1.{end}" for end in ("ark", "scp", "seen", "sum", "utt2dur", "utt2num_frames")]
    for key, location in read_scp(f"{prefix}.scp").items():
        expected = fbank(samples_of(key), FbankConfig(num_mels=40, window="hamming"))
        step = (expected.max() - expected.min()) / 255
        np.testing.assert_allclose(read_array(key, location), expected, rtol=0, atol=0.51 * step)
    assert read_table(f"{prefix}.utt2num_frames") == {"a-1": "98", "a-2": "148", "b-1": "48"}
    assert read_table(f"{prefix}.utt2dur") == {"a-1": "1.000", "a-2": "1.500", "b-1": "0.500"}


def test_a_speed_changes_ids_and_lengths(directory: Path) -> None:
    prefix = directory / "fbank" / "feats"
    make_fbanks(FbankJob(directory, str(prefix), FbankConfig(), Copy(0.9)))
    feats = read_array("sp0.9-a-1", read_scp(f"{prefix}.scp")["sp0.9-a-1"])
    expected = fbank(speed_perturb(samples_of("a-1"), 0.9), FbankConfig())
    np.testing.assert_allclose(feats, expected, rtol=0, atol=0.51 * (expected.max() - expected.min()) / 255)
    assert read_table(f"{prefix}.utt2dur") == {"sp0.9-a-1": "1.111", "sp0.9-a-2": "1.667", "sp0.9-b-1": "0.556"}


def test_every_bad_utterance_is_named_and_no_output_is_left(directory: Path, repository: Path) -> None:
    (directory / "a-2.wav").write_bytes(b"")
    soundfile.write(directory / "b-1.wav", np.zeros(300), 16000)
    prefix = directory / "fbank" / "feats.1"
    done = run(repository, "--data", directory, "--out", prefix)
    assert done.returncode == 1
    assert f"a-2: {directory}/a-2.wav: empty (0 bytes)" in done.stderr
    assert "b-1: too short for one frame: 300 of 400 samples" in done.stderr
    last = done.stderr.splitlines()[-1]
    assert "2 of 3 utterances unreadable; first: a-2 " in last
    assert "--max-bad" in last
    assert "Traceback" not in done.stderr
    assert outputs(prefix) == []


def test_bad_utterances_that_are_allowed_are_listed(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    (directory / "a-2.wav").unlink()
    prefix = directory / "fbank" / "feats"
    with caplog.at_level(logging.ERROR):
        make_fbanks(FbankJob(directory, str(prefix), FbankConfig(), max_bad=1))
    assert f"a-2: {directory}/a-2.wav: No such file" in caplog.text
    assert list(read_table(f"{prefix}.scp")) == ["a-1", "b-1"]
    assert Path(f"{prefix}.bad").read_text() == f"a-2 {directory}/a-2.wav: No such file or directory\n"
    soundfile.write(directory / "a-2.wav", samples_of("a-2"), 16000)
    make_fbanks(FbankJob(directory, str(prefix), FbankConfig()))
    assert not Path(f"{prefix}.bad").exists()


def test_bad_headers_and_loud_audio_are_bad_utterances(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    loud = samples_of("a-2")
    loud[9] = 1e30
    soundfile.write(directory / "a-2.wav", loud, 16000, subtype="FLOAT")
    data = bytearray((directory / "b-1.wav").read_bytes())
    data[24:28] = (1 << 31).to_bytes(4, "little")  # the sampling rate
    (directory / "b-1.wav").write_bytes(data)
    with caplog.at_level(logging.ERROR):
        make_fbanks(FbankJob(directory, str(directory / "feats"), FbankConfig(), max_bad=2))
    assert f"a-2: {directory}/a-2.wav: the audio holds values up to 1e+30" in caplog.text
    assert f"b-1: {directory}/b-1.wav: " in caplog.text
    assert list(read_table(directory / "feats.scp")) == ["a-1"]


@pytest.mark.parametrize(("rate", "speed"), [(16000, 1.0), (24000, 1.1)])
def test_a_long_recording_needs_little_memory(directory: Path, rate: int, speed: float) -> None:
    minute, minutes = np.random.default_rng(0).normal(0, 0.1, 60 * rate).astype(np.float32), 20
    with soundfile.SoundFile(directory / "a-1.wav", "w", rate, 1) as file:
        for _ in range(minutes):
            file.write(minute)
    write_table(directory / "wav.scp", {"a-1": directory / "a-1.wav"})
    with little_memory(170 << 20):  # without blocks: 210 MB, and up to three times as much
        make_fbanks(FbankJob(directory, str(directory / "feats"), FbankConfig(), Copy(speed)))
    duration = float(next(iter(read_table(directory / "feats.utt2dur").values())))
    assert duration == pytest.approx(60 * minutes / speed, abs=0.001)
    key, location = next(iter(read_scp(directory / "feats.scp").items()))
    feats = read_array(key, location)
    assert len(feats) == int((duration * 16000 - 400) // 160) + 1
    assert np.abs(feats[100:5000].mean(0) - feats[-5000:-100].mean(0)).max() < 0.1


def test_an_empty_ark_is_not_written(directory: Path) -> None:
    for key in LENGTHS:
        (directory / f"{key}.wav").unlink()
    with pytest.raises(InputError, match="3 of 3 utterances unreadable"):
        make_fbanks(FbankJob(directory, str(directory / "fbank" / "feats"), FbankConfig(), max_bad=99))


@pytest.mark.parametrize(
    ("features", "fault"),
    [
        ("{num_mel: 80}", "config.yaml: features: unknown key 'num_mel'; did you mean 'num_mels'?"),
        ("80", "config.yaml: features: expected keys and values, found 80"),
        ("{window: povy}", "window 'povy' is none of"),
    ],
)
def test_invalid_options_are_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch, features: str, fault: str
) -> None:
    (directory / "config.yaml").write_text(f"features: {features}\n")
    words = ["make_fbank", "--data", directory, "--out", directory / "feats", "--config", directory / "config.yaml"]
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    with pytest.raises(InputError, match=re.escape(fault)):
        make_fbank.main()


@pytest.mark.parametrize("table", ["wav.scp", "musan/wav.scp", "rirs/wav.scp"])
@pytest.mark.parametrize("segments", [False, True])
def test_no_pipes_runs_no_command(directory: Path, table: str, segments: bool) -> None:
    kind = {"musan/wav.scp": "noise", "rirs/wav.scp": "reverb"}.get(table, "")
    for name in ("musan", "rirs"):
        (directory / name).mkdir()
        clip = "room-1" if name == "rirs" else "noise-1"
        for file, value in (("wav.scp", directory / "b-1.wav"), ("utt2spk", clip[:-2]), ("utt2dur", "0.5")):
            write_table(directory / name / file, {clip: value})
    if segments:
        write_table(directory / "segments", {f"{key}-x": f"{key} 0 0.4" for key in LENGTHS})
    copy = Copy(1.0, kind, 1, str(directory / "musan"), str(directory / "rirs"))
    make_fbanks(FbankJob(directory, str(directory / "out"), FbankConfig(), copy, pipes=False))
    lines = read_table(directory / table)
    last = list(lines)[-1]
    write_table(directory / table, lines | {last: f"touch {directory}/BAD; cat {directory}/b-1.wav |"})
    fault = f"{directory / table}:{len(lines)}: '{last}' is a command, which --no-pipes forbids"
    with pytest.raises(InputError, match=re.escape(fault)):
        make_fbanks(FbankJob(directory, str(directory / "out"), FbankConfig(), copy, pipes=False))
    assert not (directory / "BAD").exists()
    make_fbanks(FbankJob(directory, str(directory / "out"), FbankConfig(), copy))
    assert (directory / "BAD").exists()


def test_clips_whose_tables_differ_are_refused(directory: Path) -> None:
    (directory / "musan").mkdir()
    tables = {"wav.scp": directory / "b-1.wav", "utt2spk": "noise", "utt2dur": "0.5"}
    for name, value in tables.items():
        write_table(directory / "musan" / name, {"noise-1": value})
    job = FbankJob(directory, str(directory / "out"), FbankConfig(), Copy(1.0, "noise", 1, str(directory / "musan")))
    write_table(directory / "musan/utt2dur", {"noise-1": "half"})
    with pytest.raises(InputError, match="utt2dur: could not convert string to float: 'half': list them again"):
        make_fbanks(job)
    write_table(directory / "musan/utt2dur", {"noise-2": "0.5"})
    with pytest.raises(InputError, match="do not list the same clips"):
        make_fbanks(job)


def test_a_full_disk_is_named_and_nothing_is_left(directory: Path, repository: Path, tmp_path: Path) -> None:
    """On a tmpfs of 16 kB, in a new mount namespace."""
    disk = tmp_path / "disk"
    disk.mkdir()
    inside = f'mount -t tmpfs -o size=16k none {disk} || exit 77; "$@"; code=$?; ls -A {disk}; exit $code'
    program = [sys.executable, "-m", "wespeaker_lite.bin.make_fbank", "--data", directory, "--out", disk / "feats"]
    command = ["unshare", "-rm", "bash", "-c", inside, "bash", *map(str, program)]
    try:
        done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no unshare")
    if done.returncode == 77 or done.stderr.startswith("unshare"):
        pytest.skip("no tmpfs can be mounted here")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"make_fbank: No space left on device: {disk}/feats.ark"
    assert done.stdout == ""
