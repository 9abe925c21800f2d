"""Reports, pictures and comparisons of experiments with simulated scores."""

import json
import logging
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.kaldi.trials import Trials
from wespeaker_lite.recipe import stamps
from wespeaker_lite.report import plots, report
from wespeaker_lite.report.bootstrap import holm, interval, p_value, replicate_metrics, resample_speakers
from wespeaker_lite.report.compare import Comparison, System, compare, parse_system
from wespeaker_lite.report.report import BootstrapOptions, write_report
from wespeaker_lite.report.tables import results_table, table
from wespeaker_lite.scoring.metrics import measure, operating_points
from wespeaker_lite.scoring.results import (
    mean_of_lists,
    read_cost,
    read_results,
    summarise,
    write_results,
)
from wespeaker_lite.scoring.scores import read_scores, write_scores

UTT2SPK = {f"s{speaker:02d}-{number}": f"s{speaker:02d}" for speaker in range(14) for number in range(3)}
OPTIONS = BootstrapOptions(UTT2SPK, replicates=200)


def make_trials() -> Trials:
    names = list(UTT2SPK)
    pairs = [(first, second) for place, first in enumerate(names) for second in names[place + 1 :]]
    labels = np.array([UTT2SPK[first] == UTT2SPK[second] for first, second in pairs])
    return Trials([first for first, _ in pairs], [second for _, second in pairs], labels)


TRIALS = make_trials()


def make_experiment(folder: Path, gain: float, lists: tuple[str, ...] = ("trials_O",), seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    results: dict[str, object] = {"trials": {}, "params": 2_240_000, "macs_1s": 123_400_000}
    for name in lists:
        scores = np.round(rng.standard_normal(len(TRIALS)) + gain * TRIALS.labels, 6)
        write_scores(folder / "scores" / f"{name}.cosine.score", TRIALS, scores)
        results["trials"][name] = {"cosine": summarise(TRIALS, scores, name)}
    write_results(folder / "results.json", results)
    return scores


def test_the_report_has_figures_intervals_and_pictures(tmp_path: Path) -> None:
    experiment = tmp_path / "student"
    scores = make_experiment(experiment, gain=2, lists=("trials_H", "trials_O"))
    (experiment / "report").mkdir()
    (experiment / "report" / "hist_gone_cosine.png").write_text("of an earlier run")
    text = write_report(experiment, OPTIONS)
    assert (experiment / "report" / "report.md").read_text() == text
    assert text.startswith("# student\n")
    assert "In brackets: 95 % intervals by bootstrap over speakers, 200 replicates." in text
    assert "2,240,000 parameters, 123.4 M multiply-accumulates" in text
    replicates = replicate_metrics(scores, TRIALS.labels, resample_speakers(TRIALS, UTT2SPK, 200))
    low, high = interval(replicates["eer"])
    eer = summarise(TRIALS, scores, "")["eer"]
    assert f"{100 * eer:.2f} [{100 * low:.2f}, {100 * high:.2f}]" in text
    pictures = sorted(path.name for path in (experiment / "report").glob("*.png"))
    assert pictures == ["det.png", "hist_trials_H_cosine.png", "hist_trials_O_cosine.png"]
    for name in pictures:
        assert (experiment / "report" / name).read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_report_has_a_note_instead_of_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make_experiment(tmp_path, gain=2)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    text = write_report(tmp_path, OPTIONS)
    assert "tools/install.sh --extras plots" in caplog.text
    assert "det.png" not in text
    assert not list((tmp_path / "report").glob("*.png"))


def test_without_speakers_or_with_few_there_are_no_intervals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(report, "draw_pictures", lambda folder, scored: False)
    make_experiment(tmp_path, gain=2)
    text = write_report(tmp_path, BootstrapOptions())
    assert "[" not in text
    assert "In brackets" not in text
    few = Trials(["s00-0", "s00-0"], ["s00-1", "s01-0"], np.array([True, False]))
    write_scores(tmp_path / "scores" / "few.cosine.score", few, np.array([1.0, 0.0]))
    figures = summarise(few, np.array([1.0, 0.0]), "few")
    write_results(tmp_path / "results.json", {"trials": {"few": {"cosine": figures}}})
    with caplog.at_level(logging.WARNING):
        assert "In brackets" not in write_report(tmp_path, OPTIONS)
    assert "few: no intervals: trials of 2 speakers are too few" in caplog.text


def test_labels_that_contradict_the_speakers_are_an_error(tmp_path: Path) -> None:
    make_experiment(tmp_path, gain=2)
    with pytest.raises(InputError, match="labelled target, which utt2spk contradicts"):
        write_report(tmp_path, BootstrapOptions({name: name for name in UTT2SPK}))


def test_scores_of_another_run_are_refused(tmp_path: Path) -> None:
    make_experiment(tmp_path, gain=2)
    short = tmp_path / "scores" / "trials_O.cosine.score"
    short.write_text("".join(short.read_text().splitlines(keepends=True)[:50]))
    with pytest.raises(InputError, match=r"trials_O\.cosine\.score does not fit results\.json"):
        write_report(tmp_path, OPTIONS)
    with pytest.raises(InputError, match="run stage 6 first"):
        write_report(tmp_path / "nowhere", OPTIONS)


@pytest.mark.parametrize("labels", [TRIALS.labels, ~TRIALS.labels], ids=["perfect", "reversed"])
def test_pictures_of_extreme_systems_are_drawn(tmp_path: Path, labels: np.ndarray) -> None:
    assert plots.draw_pictures(tmp_path, {("x", "cosine"): plots.Scored(TRIALS.labels.astype(float), labels)})
    assert (tmp_path / "det.png").stat().st_size > 5000


def test_det_curves_keep_their_shape_without_the_straight_parts() -> None:
    rng = np.random.default_rng(0)
    labels = rng.random(500) < 0.4
    points = operating_points(rng.standard_normal(500) + labels, labels)
    corners = plots._corners(points.miss, points.false_alarm)
    assert corners.sum() < 400
    position = np.cumsum(np.abs(np.diff(points.miss, prepend=0)) + np.abs(np.diff(points.false_alarm, prepend=1)))
    for rates in (points.miss, points.false_alarm):
        redrawn = np.interp(position, position[corners], rates[corners])
        np.testing.assert_allclose(redrawn, rates, atol=1e-12)


def cells(text: str) -> list[list[str]]:
    rows = [line for line in text.splitlines() if line.startswith("|") and "--" not in line]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_comparison_pools_seeds_and_pairs_differences(tmp_path: Path) -> None:
    plain = [make_experiment(tmp_path / f"plain{seed}", 1.5, seed=seed) for seed in (1, 2)]
    better = make_experiment(tmp_path / "better", 2.5, seed=3)
    systems = [parse_system(f"plain={tmp_path}/plain1,{tmp_path}/plain2"), parse_system(f"kd={tmp_path}/better")]
    header, first, second = cells(compare(systems, Comparison(("trials_O",), "cosine", "plain"), OPTIONS))
    assert header[:6] == ["system", "params", "MACs (1 s)", "seeds", "EER %", "against plain"]
    assert first[:4] == ["plain", "2.24 M", "123 M", "2"]
    draws = resample_speakers(TRIALS, UTT2SPK, 200)
    eers = [summarise(TRIALS, scores, "")["eer"] for scores in plain]
    pooled = np.mean([replicate_metrics(scores, TRIALS.labels, draws)["eer"] for scores in plain], axis=0)
    low, high = interval(pooled)
    spread = np.std(eers, ddof=1)
    assert first[4] == f"{100 * np.mean(eers):.2f} ±{100 * spread:.2f} [{100 * low:.2f}, {100 * high:.2f}]"
    assert first[5] == ""
    difference = summarise(TRIALS, better, "")["eer"] - np.mean(eers)
    low, high = interval(replicate_metrics(better, TRIALS.labels, draws)["eer"] - pooled)
    relative = 100 * difference / np.mean(eers)
    assert second[5] == f"{100 * difference:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}] ({relative:+.0f} %)"


def test_differences_are_marked_with_a_correction_for_all_rows(tmp_path: Path) -> None:
    make_experiment(tmp_path / "plain", 1.5, seed=1)
    gains = {"far": 2.5, "near": 1.8, "same": 1.5}
    systems = [System("plain", (tmp_path / "plain",))]
    for name, gain in gains.items():
        make_experiment(tmp_path / name, gain, seed=2)
        systems.append(System(name, (tmp_path / name,)))
    text = compare(systems, Comparison(("trials_O",), "cosine", "plain"), OPTIONS)
    draws = resample_speakers(TRIALS, UTT2SPK, 200)
    scores = {name: read_scores(tmp_path / name / "scores/trials_O.cosine.score")[1] for name in ("plain", *gains)}
    replicates = {name: replicate_metrics(each, TRIALS.labels, draws)["eer"] for name, each in scores.items()}
    values = [p_value(replicates[name] - replicates["plain"]) for name in gains]
    marked = {name for name, value in zip(gains, holm(values), strict=True) if value < 0.05}
    assert {row[0] for row in cells(text) if row[5].endswith("*")} == marked
    assert "far" in marked
    assert "same" not in marked
    assert "Holm's correction for 3 tests of a column" in text


def test_a_system_compared_with_itself_does_not_differ(tmp_path: Path) -> None:
    make_experiment(tmp_path / "a", 1.5)
    systems = [System("a", (tmp_path / "a",)), System("again", (tmp_path / "a",))]
    text = compare(systems, Comparison(("trials_O",), "cosine", "a"), OPTIONS)
    assert cells(text)[2][5] == "+0.00 [+0.00, +0.00] (+0 %)"
    assert "against" not in compare(systems, Comparison(("trials_O",)), OPTIONS)


def test_systems_of_different_trials_are_refused(tmp_path: Path) -> None:
    make_experiment(tmp_path / "a", 1.5)
    make_experiment(tmp_path / "b", 1.5)
    path = tmp_path / "b" / "scores" / "trials_O.cosine.score"
    path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    systems = [System("a", (tmp_path / "a",)), System("b", (tmp_path / "b",))]
    with pytest.raises(InputError, match=r"b/scores/trials_O\.cosine\.score does not have the trials of .*a/scores"):
        compare(systems, Comparison(("trials_O",)), OPTIONS)
    with pytest.raises(InputError, match="'c' is not a row; known: a, b"):
        compare(systems, Comparison(("trials_O",), "cosine", "c"), OPTIONS)
    with pytest.raises(InputError, match="same name"):
        compare(systems[:1] * 2, Comparison(("trials_O",)), OPTIONS)


def make_pool(folder: Path, gain: float, seed: int = 0) -> dict[str, np.ndarray]:
    """Results of two test sets and their mean: far has all speakers, and near the first eleven."""
    rng = np.random.default_rng(seed)
    results: dict[str, object] = {"trials": {}}
    scores = {}
    for name, trials in POOL.items():
        scores[name] = np.round(rng.standard_normal(len(trials)) + gain * trials.labels, 6)
        write_scores(folder / "scores" / f"{name}.cosine.score", trials, scores[name])
        results["trials"][name] = {"cosine": summarise(trials, scores[name], name)}
    results["mean"] = mean_of_lists(results["trials"], list(POOL))
    write_results(folder / "results.json", results)
    return scores


def first_speakers(count: int) -> Trials:
    kept = [row for row, pair in enumerate(zip(TRIALS.enroll, TRIALS.test, strict=True)) if max(pair) < f"s{count:02d}"]
    return Trials([TRIALS.enroll[row] for row in kept], [TRIALS.test[row] for row in kept], TRIALS.labels[kept])


POOL = {"far": TRIALS, "near": first_speakers(11)}


def pool_replicates(scores: dict[str, np.ndarray]) -> np.ndarray:
    """The mean EER in each replicate, from lists with weights by a plain loop over trials."""
    speakers = sorted(set(UTT2SPK.values()))
    times = np.random.default_rng(0).multinomial(14, np.full(14, 1 / 14), size=200)
    means = []
    for row in times:
        drawn = dict(zip(speakers, row.tolist(), strict=True))
        eers = []
        for name, trials in POOL.items():
            pairs = zip(trials.enroll, trials.test, trials.labels.tolist(), strict=True)
            weights = [drawn[a[:3]] * (1 if same else drawn[b[:3]]) for a, b, same in pairs]
            labels, values = np.repeat(trials.labels, weights), np.repeat(scores[name], weights)
            eers.append(float(measure_eer(values, labels)))
        means.append(np.mean(eers))
    return np.array(means)


def measure_eer(scores: np.ndarray, labels: np.ndarray) -> float:
    points = operating_points(scores, labels)
    return measure(points.miss, points.false_alarm)["eer"]


def shown(bounds: tuple[float, float], sign: str = "") -> str:
    return f"[{100 * bounds[0]:{sign}.2f}, {100 * bounds[1]:{sign}.2f}]"


def test_the_mean_over_test_sets_has_an_interval_by_speakers_of_all_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "draw_pictures", lambda folder, scored: False)
    plain, better = (pool_replicates(make_pool(tmp_path / name, gain)) for name, gain in (("a", 1.5), ("b", 2.5)))
    text = write_report(tmp_path / "a", OPTIONS)
    row = next(line for line in text.splitlines() if line.startswith("| mean of 2"))
    assert shown(interval(plain)) in row
    systems = [System("a", (tmp_path / "a",)), System("b", (tmp_path / "b",))]
    text = compare(systems, Comparison(("far",), baseline="a", mean=("far", "near")), OPTIONS)
    _, mean = text.split("### mean of far, near, cosine")
    assert shown(interval(better)) in cells(mean)[2][4]
    assert shown(interval(better - plain), "+") in cells(mean)[2][5]
    assert "### near" not in text


def test_seeds_are_resampled_on_request(tmp_path: Path) -> None:
    """For two very different seeds the interval contains both; the mean of the two in each replicate would not."""
    make_experiment(tmp_path / "one", 0.8, seed=1)
    make_experiment(tmp_path / "two", 3.0, seed=2)
    systems = [System("a", (tmp_path / "one", tmp_path / "two")), System("same", (tmp_path / "one", tmp_path / "two"))]
    text = compare(systems, Comparison(("trials_O",), baseline="a", draw_seeds=True), OPTIONS)
    fixed = compare(systems, Comparison(("trials_O",), baseline="a"), OPTIONS)
    eers = [100 * read_results(tmp_path / name)["trials"]["trials_O"]["cosine"]["eer"] for name in ("two", "one")]
    (low, high), (fixed_low, fixed_high) = (
        map(float, cells(one)[1][4].partition("[")[2].rstrip("]").split(", ")) for one in (text, fixed)
    )
    assert low <= eers[0] < fixed_low < fixed_high < eers[1] <= high
    assert cells(text)[2][5] == "+0.00 [+0.00, +0.00] (+0 %)"  # the same experiments have the same draws


def make_calibrated(folder: Path) -> dict[str, float]:
    """An experiment with the scores of `make_experiment`, and the doubled scores as log-likelihood ratios."""
    scores = make_experiment(folder, 1.5)
    results = read_results(folder)
    results["trials"]["trials_O"]["cosine_linear"] = summarise(TRIALS, 2 * scores, "", calibrated=True)
    write_scores(folder / "scores" / "trials_O.cosine_linear.score", TRIALS, 2 * scores)
    write_results(folder / "results.json", results)
    return results["trials"]["trials_O"]["cosine_linear"]


def test_metrics_of_calibrated_scores_are_shown_if_there_are_any(tmp_path: Path) -> None:
    figures = make_calibrated(tmp_path / "a")
    names = ["actDCF (p=0.01)", "actDCF (p=0.05)", "Cllr", "min Cllr"]
    wanted = [f"{figures[key]:.3f}" for key in ("actdcf_p0.01", "actdcf_p0.05", "cllr", "min_cllr")]
    for text in (results_table(read_results(tmp_path / "a")), write_report(tmp_path / "a", OPTIONS)):
        header, plain, linear = cells(text)
        columns = [header.index(name) for name in names]
        assert [linear[column] for column in columns] == wanted
        assert [plain[column] for column in columns] == [""] * 4


def test_scorings_of_one_experiment_are_compared(tmp_path: Path) -> None:
    figures = make_calibrated(tmp_path / "a")
    systems = [parse_system(f"{name}={tmp_path}/a") for name in ("cosine", "linear:cosine_linear")]
    header, plain, linear = cells(compare(systems, Comparison(("trials_O",), "cosine", "cosine"), OPTIONS))
    assert linear[:5] == ["linear", *plain[1:5]]
    assert linear[5] == "+0.00 [+0.00, +0.00] (+0 %)"
    assert (plain[header.index("Cllr")], linear[header.index("Cllr")]) == ("", f"{figures['cllr']:.3f}")
    assert "Cllr" not in compare(systems[:1], Comparison(("trials_O",)), OPTIONS)


@pytest.mark.parametrize("row", ["plain", "plain=", "=exp/a", "plain=exp/a,exp/a", "plain:=exp/a"])
def test_a_bad_row_is_refused(row: str) -> None:
    with pytest.raises(InputError, match="expected NAME=EXPERIMENT"):
        parse_system(row)


def test_too_few_replicates_are_refused() -> None:
    with pytest.raises(InputError, match="at least 100"):
        BootstrapOptions(UTT2SPK, replicates=10)


def test_cost_is_read_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "cost.json"
    path.write_text(json.dumps({"params": 1, "macs_1s": 2, "head": 3}))
    assert read_cost(path) == {"params": 1, "macs_1s": 2}
    for text, fault in (("{", "not JSON"), ("[]", "one JSON object"), ('{"params": 1}', "no 'macs_1s'")):
        path.write_text(text)
        with pytest.raises(InputError, match=fault):
            read_cost(path)


def test_results_are_read_back_and_shown_in_percent(tmp_path: Path) -> None:
    make_experiment(tmp_path, gain=2)
    results = read_results(tmp_path)
    eer = results["trials"]["trials_O"]["cosine"]["eer"]
    header, row = cells(results_table(results))
    assert header == ["trials", "scoring", "EER %", "minDCF (p=0.01)", "minDCF (p=0.05)", "targets", "nontargets"]
    assert row[2] == f"{100 * eer:.2f}"
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(InputError, match="no trial lists"):
        read_results(tmp_path)


def test_the_mean_weights_all_lists_equally(tmp_path: Path) -> None:
    make_experiment(tmp_path, gain=2)
    results = read_results(tmp_path)
    one = results["trials"]["trials_O"]["cosine"]
    trials = {"trials_O": {"cosine": one}, "trials_X": {"cosine": {**one, "eer": one["eer"] + 0.02, "cllr": 1.0}}}
    mean = mean_of_lists(trials, ["trials_O", "trials_X"])
    assert mean["scorings"]["cosine"].keys() == {"eer", "mindcf_p0.01", "mindcf_p0.05"}  # cllr is not of all
    assert mean["scorings"]["cosine"]["eer"] == pytest.approx(one["eer"] + 0.01)
    results["mean"] = mean
    last = cells(results_table(results))[-1]
    assert last[:3] == ["mean of 2", "cosine", f"{100 * (one['eer'] + 0.01):.2f}"]
    write_results(tmp_path / "results.json", results)
    report = write_report(tmp_path, BootstrapOptions())
    assert "The mean has equal weights for the lists: trials_O, trials_X." in report
    assert f"| mean of 2 |  cosine | {100 * (one['eer'] + 0.01):.2f} |" in report
    with pytest.raises(InputError, match="--mean none: no such list"):
        mean_of_lists(trials, ["none"])


def test_table_columns_are_aligned() -> None:
    lines = table(["name", "x"], [["a", 1.5], ["longer", "10"]]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1] == "| :----- | --: |"
    assert re.fullmatch(r"\| a      \| 1\.5 \|", lines[2])


@pytest.mark.parametrize("name", ["results.json", "scores/trials_O.cosine.score"])
def test_damaged_scores_are_not_compared(tmp_path: Path, name: str) -> None:
    for system in "ab":
        make_experiment(tmp_path / system, 1.5)
        made = ["results.json", *(f"scores/{path.name}" for path in (tmp_path / system / "scores").iterdir())]
        stamps.write(
            tmp_path / system / ".score.stamp", stamps.Inputs(), [str(tmp_path / system / one) for one in made]
        )
    systems = [System("a", (tmp_path / "a",)), System("b", (tmp_path / "b",))]
    compare(systems, Comparison(("trials_O",)), OPTIONS)
    path = tmp_path / "b" / name
    content = path.read_text()
    path.write_text(content.replace("1", "2", 1))
    assert path.read_text() != content
    with pytest.raises(InputError, match=r"b/.*was damaged or changed after .*run stage 6 again"):
        compare(systems, Comparison(("trials_O",)), OPTIONS)
