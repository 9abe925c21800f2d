"""Fusion of simulated systems with known optimal weights."""

import json
from pathlib import Path

import numpy as np
import pytest

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.kaldi.trials import Trials
from wespeaker_lite.report.report import BootstrapOptions, write_report
from wespeaker_lite.report.tables import results_table
from wespeaker_lite.scoring.fusion import fuse
from wespeaker_lite.scoring.results import read_results, summarise, write_results
from wespeaker_lite.scoring.scores import read_scores, score_file, write_scores

# Two systems with independent noise, twice as much in the second: their log-likelihood ratios add.
GAINS = {"one": 2.0, "two": 1.0}


def trials_of(count: int, seed: int) -> Trials:
    names = [f"s{number}" for number in range(40)]
    rng = np.random.default_rng(seed)
    enroll, test = rng.integers(0, 40, (2, count))
    labels = rng.random(count) < 0.5
    test = np.where(labels, enroll, np.where(test == enroll, (enroll + 1) % 40, test))
    return Trials([f"{names[row]}-1" for row in enroll], [f"{names[row]}-2" for row in test], labels)


@pytest.fixture
def systems(tmp_path: Path) -> list[Path]:
    """Scores N(gain, 1) of targets and N(-gain, 1) of nontargets: their log-likelihood ratio is 2 gain x."""
    rng = np.random.default_rng(0)
    for name, gain in GAINS.items():
        results = {"trials": {}, "params": 1000, "macs_1s": 500}
        for part, count in (("calibration", 20_000), ("list", 6000), ("more", 500)):
            trials = trials_of(count, seed=count)
            scores = np.round(rng.standard_normal(len(trials)) + np.where(trials.labels, gain, -gain), 6)
            write_scores(score_file(tmp_path / name, part, "asnorm"), trials, scores)
            if part != "calibration":
                results["trials"][part] = {"asnorm": summarise(trials, scores, part)}
        write_results(tmp_path / name / "results.json", results)
    return [tmp_path / name for name in GAINS]


def test_the_fusion_is_the_sum_of_the_ratios(tmp_path: Path, systems: list[Path]) -> None:
    table = results_table(fuse(systems, "asnorm", tmp_path / "both"))
    results = read_results(tmp_path / "both")
    weights = list(results["fusion"]["weights"].values())
    np.testing.assert_allclose(weights, [4.0, 2.0], rtol=0.1)
    assert abs(results["fusion"]["bias"]) < 0.2
    assert (results["params"], results["macs_1s"]) == (2000, 1000)
    assert list(results["trials"]) == ["list", "more"]
    alone = [read_scores(score_file(system, "list", "asnorm"))[1] for system in systems]
    trials, ratios = read_scores(score_file(tmp_path / "both", "list", "fusion"))
    wanted = alone[0] * weights[0] + alone[1] * weights[1] + results["fusion"]["bias"]
    np.testing.assert_allclose(ratios, wanted, atol=1e-6)
    assert results["trials"]["list"]["fusion"] == summarise(trials, ratios, "", calibrated=True)
    eers = [summarise(trials, scores, "")["eer"] for scores in (*alone, ratios)]
    assert eers[2] < eers[0] < eers[1]
    for system, eer in zip((*systems, "fusion"), eers, strict=True):
        assert any(str(system) in line and f"{100 * eer:.2f}" in line for line in table.splitlines())


def test_the_report_reads_a_fusion_like_an_experiment(tmp_path: Path, systems: list[Path]) -> None:
    fuse(systems, "asnorm", tmp_path / "both")
    text = write_report(tmp_path / "both", BootstrapOptions())
    figures = json.loads((tmp_path / "both" / "results.json").read_text())["trials"]["list"]["fusion"]
    row = next(line for line in text.splitlines() if "| list" in line)
    assert f"{figures['cllr']:.3f}" in row


def test_systems_that_cannot_be_fused_are_errors(tmp_path: Path, systems: list[Path]) -> None:
    for experiments, out in ((systems[:1], "out"), (systems[:1] * 2, "out"), (systems, "one")):
        with pytest.raises(InputError, match="at least two experiments, each once"):
            fuse(experiments, "asnorm", tmp_path / out)
    with pytest.raises(InputError, match="no scores by 'plda'"):
        fuse(systems, "plda", tmp_path / "out")
    path = score_file(systems[1], "list", "asnorm")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:7], *lines[8:]]))
    with pytest.raises(
        InputError, match=r"two/scores/list\.asnorm\.score does not have the trials of .*one.*line 8 is"
    ):
        fuse(systems, "asnorm", tmp_path / "out")
    score_file(systems[1], "calibration", "asnorm").unlink()
    with pytest.raises(InputError, match=r"two/scores/calibration\.asnorm\.score: no such file; a fusion is trained"):
        fuse(systems, "asnorm", tmp_path / "out")
    assert not (tmp_path / "out" / "results.json").exists()
