"""The programs that use a trained model: verify and embed."""

import json
import math
import subprocess
import sys
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile

from tests.deploy.models import make_model
from wespeaker_lite import SpeakerModel

VERIFY = {"mean": None, "thresholds": {"trials_O": 2.0, "trials_H": -2.0}, "cosine_linear": [3.0, 1.0]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_model(tmp_path / "final.pt")
    for number, name in enumerate(("a.wav", "b.flac", "c.wav")):
        soundfile.write(tmp_path / name, np.random.default_rng(number).normal(0, 0.1, 16000), 16000)
    soundfile.write(tmp_path / "short.wav", np.zeros(100), 16000)
    return tmp_path


def run(folder: Path, repository: Path, program: str, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"wespeaker_lite.bin.{program}", "--model", "final.pt", *words]
    environment = {"PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_without_a_threshold_only_the_score_is_printed(folder: Path, repository: Path) -> None:
    done = run(folder, repository, "verify", "a.wav", "b.flac")
    assert done.returncode == 0, done.stderr
    score = SpeakerModel.load(folder / "final.pt").score(folder / "a.wav", folder / "b.flac")
    assert done.stdout.startswith(f"score {score:.4f} (no threshold")


def test_a_threshold_gives_a_decision(folder: Path, repository: Path) -> None:
    (folder / "verify.json").write_text(json.dumps(VERIFY))
    done = run(folder, repository, "verify", "a.wav", "b.flac")
    assert done.stdout.startswith("different speakers: ")
    assert "threshold 2.0000 (EER point of trials_O)" in done.stdout
    words = ("--enroll", "a.wav", "b.flac", "--test", "c.wav", "--json")
    found = json.loads(run(folder, repository, "verify", *words, "--trials", "trials_H").stdout)
    assert (found["same_speaker"], found["enroll"], found["test"]) == (True, ["a.wav", "b.flac"], "c.wav")
    found = json.loads(run(folder, repository, "verify", *words, "--p-target", "0.05").stdout)
    assert found["llr"] == pytest.approx(3 * found["score"] + 1)
    assert found["threshold"] == pytest.approx(math.log(19))
    assert found["same_speaker"] == (found["llr"] >= math.log(19))


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["a.wav", "short.wav"], "verify: short.wav: too short"),
        (["a.wav"], "name two recordings"),
        (["--enroll", "a.wav"], "go together"),
        (["a.wav", "b.flac", "--p-target", "0.1"], "cosine_linear"),
        (["a.wav", "b.flac", "--trials", "trials_E"], "no threshold of this list"),
    ],
)
def test_errors_are_one_line(folder: Path, repository: Path, words: list[str], fault: str) -> None:
    done = run(folder, repository, "verify", *words)
    assert done.returncode == 1
    assert fault in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout


def test_embeddings_as_ark_and_npz(folder: Path, repository: Path) -> None:
    (folder / "wav.scp").write_text("utt-a a.wav\nutt-b cat b.flac |\n")
    done = run(folder, repository, "embed", "--out", "xvector", "wav.scp")
    assert done.returncode == 0, done.stderr
    assert "2 of 2 recordings" in done.stderr
    (folder / "files.txt").write_text("b.flac\na.wav\n")
    assert run(folder, repository, "embed", "--out", "x.npz", "files.txt").returncode == 0
    ark, npz = kaldiio.load_scp(str(folder / "xvector.scp")), np.load(folder / "x.npz")
    assert npz["ids"].tolist() == ["b.flac", "a.wav"]
    np.testing.assert_allclose(npz["embeddings"], [ark["utt-b"], ark["utt-a"]], atol=1e-6)
    assert "--no-pipes forbids" in run(folder, repository, "embed", "--no-pipes", "--out", "y", "wav.scp").stderr


def test_bad_recordings_stop_the_job_unless_allowed(folder: Path, repository: Path) -> None:
    words = ("--out", "x.npz", "a.wav", "short.wav", "none.wav")
    done = run(folder, repository, "embed", *words, "--max-bad", "1")
    assert done.returncode == 1
    assert "2 of 3 recordings have no embedding; first: short.wav" in done.stderr
    assert "none.wav: No such file" in done.stderr
    assert not (folder / "x.npz").exists()
    assert run(folder, repository, "embed", *words, "--max-bad", "2").returncode == 0
    assert np.load(folder / "x.npz")["ids"].tolist() == ["a.wav"]


def test_a_running_decision_uses_only_audio_up_to_its_time(folder: Path, repository: Path) -> None:
    samples = np.random.default_rng(7).normal(0, 0.1, 32000).astype(np.float32)
    samples[16000:24000] = 0
    soundfile.write(folder / "x.wav", samples, 16000, subtype="FLOAT")
    words = ("--enroll", "a.wav", "--test", "x.wav", "--stream", "--hop", "0.25", "--json")
    done = run(folder, repository, "verify", *words, "--window", "0.5")
    assert done.returncode == 0, done.stderr
    steps = [json.loads(line) for line in done.stdout.splitlines()]
    assert [step["end"] for step in steps] == [0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]
    assert steps[4]["score"] is None
    model = SpeakerModel.load(folder / "final.pt")
    enroll = model.embed(folder / "a.wav")
    for step, (first, last) in ((steps[1], (4000, 12000)), (steps[6], (24000, 32000))):
        wanted = model.compare([enroll], model.embed(samples[first:last], 16000))
        assert step["score"] == pytest.approx(wanted, abs=1e-5)
    assert "s of computation per second of audio (window 0.5 s, hop 0.25 s, threads 1)" in done.stderr
    grown = run(folder, repository, "verify", *words, "--window", "0").stdout.splitlines()
    wanted = model.compare([enroll], model.embed(samples, 16000))
    assert json.loads(grown[-1])["score"] == pytest.approx(wanted, abs=1e-5)
    assert "--hop 0: expected" in run(folder, repository, "verify", *words[:5], "--hop", "0").stderr
