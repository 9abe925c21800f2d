"""The programs score, report and compare, started as by a user."""

import json
import os
import subprocess
import sys
from pathlib import Path

import kaldiio
import numpy as np
import pytest


class Workspace:
    """A folder with a small test set and cohort, in which the programs run."""

    def __init__(self, root: Path, repository: Path) -> None:
        self.root, self.repository = root, repository
        rng = np.random.default_rng(0)
        for part, speakers in (("test", 12), ("train", 15)):
            voices = rng.standard_normal((speakers, 16))
            names = [f"{part}{speaker:02d}-{take}" for speaker in range(speakers) for take in range(3)]
            self.write(part, {name: voices[row // 3] + 0.8 * rng.standard_normal(16) for row, name in enumerate(names)})
            (root / part / "utt2spk").write_text("".join(f"{name} {name.split('-')[0]}\n" for name in names))
            (root / part / "utt2num_frames").write_text("".join(f"{name} {300 + len(name)}\n" for name in names))
            if part == "test":
                pairs = [(one, two) for place, one in enumerate(names) for two in names[place + 1 :]]
        kinds = ("nontarget", "target")
        lines = [f"{one} {two} {kinds[one[:6] == two[:6]]}\n" for one, two in pairs]
        (root / "trials_O").write_text("".join(lines))

    def write(self, part: str, vectors: dict[str, np.ndarray]) -> None:
        folder = self.root / part
        folder.mkdir(exist_ok=True)
        with kaldiio.WriteHelper(f"ark,scp:{folder}/xvector.ark,{folder}/xvector.scp") as write:
            for name, vector in vectors.items():
                write(name, vector.astype(np.float32))

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", f"wespeaker_lite.bin.{program}", *arguments]
        environment = {**os.environ, "PYTHONPATH": str(self.repository)}
        return subprocess.run(command, cwd=self.root, env=environment, capture_output=True, text=True)

    def score(self, *more: str) -> subprocess.CompletedProcess[str]:
        return self.run("score", "--embeddings", "test/xvector.scp", "--trials", "trials_O", "--out", "exp", *more)


COHORT = ("--cohort", "train/xvector.scp", "--cohort-utt2spk", "train/utt2spk")
FRAMES = ("--frames", "test/utt2num_frames", "--cohort-frames", "train/utt2num_frames")


@pytest.fixture
def workspace(tmp_path: Path, repository: Path) -> Workspace:
    return Workspace(tmp_path, repository)


def test_score_report_compare(workspace: Workspace) -> None:
    (workspace.root / "cost.json").write_text(json.dumps({"params": 1000, "macs_1s": 5_000_000}))
    scorings = "cosine snorm asnorm asnorm_qmf"
    scored = workspace.score(*COHORT, *FRAMES, "--cost", "cost.json", "--top-n", "10", "--scorings", scorings)
    assert scored.returncode == 0, scored.stderr
    results = json.loads((workspace.root / "exp" / "results.json").read_text())
    assert (results["params"], results["macs_1s"]) == (1000, 5_000_000)
    assert list(results["trials"]["trials_O"]) == scorings.split()
    cosine = results["trials"]["trials_O"]["cosine"]
    assert set(cosine) == {"eer", "eer_threshold", "mindcf_p0.01", "mindcf_p0.05", "trials", "targets", "nontargets"}
    assert (cosine["trials"], cosine["targets"]) == (630, 36)
    assert 0 < cosine["eer"] < 0.3
    assert f"{100 * cosine['eer']:.2f}" in scored.stdout
    assert f"{results['trials']['trials_O']['asnorm_qmf']['cllr']:.3f}" in scored.stdout
    lines = (workspace.root / "exp" / "scores" / "trials_O.asnorm.score").read_text().splitlines()
    assert [line.split()[:2] for line in lines] == [
        line.split()[:2] for line in (workspace.root / "trials_O").read_text().splitlines()
    ]

    reported = workspace.run("report", "--out", "exp", "--utt2spk", "test/utt2spk", "--replicates", "100")
    assert reported.returncode == 0, reported.stderr
    assert reported.stdout == (workspace.root / "exp" / "report" / "report.md").read_text()

    rows = ("--row", "a=exp", "--row", "b=exp", "--baseline", "a")
    compared = workspace.run(
        "compare", "--utt2spk", "test/utt2spk", "--trials", "trials_O", "--scoring", "snorm", *rows
    )
    assert compared.returncode == 0, compared.stderr
    assert "### trials_O, snorm" in compared.stdout
    assert "+0.00 [+0.00, +0.00]" in compared.stdout


def test_cohort_of_utterances_needs_no_speakers(workspace: Workspace) -> None:
    scored = workspace.score("--cohort", "train/xvector.scp", "--cohort-per", "utterance", "--scorings", "asnorm")
    assert scored.returncode == 0, scored.stderr
    assert "the cohort has only 45 of the 300" in scored.stderr


def test_left_out_utterances_and_odd_trials_are_counted_in_results_and_report(workspace: Workspace) -> None:
    with (workspace.root / "trials_O").open("a") as file:
        file.write("test00-0 test00-1 target\ntest00-0 test00-0 target\n")
    (workspace.root / "train/left_out").write_text("train99-0\ntrain99-1\n")
    scored = workspace.score(*COHORT, "--left-out", "train/left_out", "--scorings", "asnorm")
    assert scored.returncode == 0, scored.stderr
    results = json.loads((workspace.root / "exp/results.json").read_text())
    assert results["left_out"] == {"train": 2}
    assert results["odd_trials"] == {"trials_O": {"duplicates": 1, "of_itself": 1}}
    assert results["small_cohort"] == {"members": 15, "top_n": 300}
    lines = [
        "2 utterances of train are left out (--max-bad).",
        "trials_O: 1 duplicate trials, 1 of an utterance with itself; all count.",
        "The cohort has only 15 of the 300 members that AS-norm needs.",
    ]
    assert scored.stdout.split("\n")[:3] == lines
    reported = workspace.run("report", "--out", "exp")
    assert reported.returncode == 0, reported.stderr
    assert reported.stdout.split("\n\n")[1:4] == lines


def test_scorings_come_from_a_config(workspace: Workspace) -> None:
    (workspace.root / "config.yaml").write_text("scoring: {scorings: [plda, plda_linear], plda: {lda_dim: 8}}\n")
    scored = workspace.score(*COHORT, "--config", "config.yaml")
    assert scored.returncode == 0, scored.stderr
    assert "PLDA of 8 dimensions (of 16) from 45 utterances of 15 speakers" in scored.stderr
    results = json.loads((workspace.root / "exp" / "results.json").read_text())
    assert list(results["trials"]["trials_O"]) == ["plda", "plda_linear"]
    assert results["trials"]["trials_O"]["plda"]["eer"] < 0.3
    assert len((workspace.root / "exp/scores/calibration.plda.score").read_text().splitlines()) == 90


def test_bad_input_is_one_line_and_old_results_stay(workspace: Workspace) -> None:
    assert workspace.score("--scorings", "cosine").returncode == 0
    before = (workspace.root / "exp" / "results.json").read_text()
    with (workspace.root / "trials_O").open("a") as file:
        file.write("test00-0 ghost-1 nontarget\n")
    for arguments, message in (
        (("--scorings", "cosine"), "trials_O:631: utterance 'ghost-1'"),
        (("--cohort", "train/xvector.scp"), "--cohort needs --cohort-utt2spk"),
        (("--scorings", "cosin"), "did you mean 'cosine'"),
    ):
        failed = workspace.score(*arguments)
        assert failed.returncode == 1
        assert message in failed.stderr
        assert failed.stderr.count("\n") == 1
    assert (workspace.root / "exp" / "results.json").read_text() == before


def test_help_shows_an_example(workspace: Workspace) -> None:
    for program in ("score", "report", "compare", "fuse"):
        shown = workspace.run(program, "--help")
        assert shown.returncode == 0, shown.stderr
        assert "Example:" in shown.stdout
