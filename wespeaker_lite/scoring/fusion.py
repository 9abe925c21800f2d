"""Fusion of several systems: a logistic regression on their scores, trained on the trials of calibration.

The result is a folder like an experiment's, with scores named `fusion` and a results.json, so that reports and
comparisons can read it.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.kaldi.trials import Trials
from wespeaker_lite.recipe.scorings import FUSION, is_calibrated
from wespeaker_lite.scoring.calibration import Calibration, train_calibration
from wespeaker_lite.scoring.metrics import check_scores
from wespeaker_lite.scoring.results import COST_KEYS, read_results, summarise, write_results
from wespeaker_lite.scoring.scores import (
    CALIBRATION_LIST,
    DECIMALS,
    check_same_trials,
    read_scores,
    score_file,
    write_scores,
)

log = logging.getLogger(__name__)


def fuse(experiments: Sequence[str | Path], scoring: str, out: str | Path, prior: float = 0.5) -> dict[str, Any]:
    """Fuse the scores of experiments with one scoring, on all lists of the first. Returns the results of all.

    Writes `out`/scores/<list>.fusion.score and `out`/results.json, which also has the weights. `prior` is that of
    `train_calibration`.

    Raises:
        InputError: if there are fewer than two systems, or scores are missing or not of the same trials.
    """
    experiments, out = [Path(experiment) for experiment in experiments], Path(out)
    folders = {experiment.resolve() for experiment in (*experiments, out)}
    if len(experiments) < 2 or len(folders) <= len(experiments):
        raise InputError("a fusion needs at least two experiments, each once, and another folder for --out")
    results = [read_results(experiment) for experiment in experiments]
    lists = [name for name, scorings in results[0]["trials"].items() if scoring in scorings]
    if not lists:
        raise InputError(f"{experiments[0]}: no scores by {scoring!r} in its results.json")
    calibration = _train(experiments, scoring, prior)
    fused: dict[str, Any] = {"trials": {}, **_joint_cost(results), FUSION: _record(experiments, scoring, calibration)}
    shown: dict[str, Any] = {}
    for name in lists:
        trials, scores = _read_together(experiments, name, scoring)
        ratios = np.round(calibration.apply(scores), DECIMALS)
        fused["trials"][name] = {FUSION: summarise(trials, ratios, f"{name} {FUSION}", calibrated=True)}
        write_scores(score_file(out, name, FUSION), trials, ratios)
        alone = {
            f"{experiment} {scoring}": summarise(trials, column, f"{experiment} {name}", is_calibrated(scoring))
            for experiment, column in zip(experiments, scores.T, strict=True)
        }
        shown[name] = alone | fused["trials"][name]
    write_results(out / "results.json", fused)
    return {"trials": shown}


def _train(experiments: Sequence[Path], scoring: str, prior: float) -> Calibration:
    for experiment in experiments:
        path = score_file(experiment, CALIBRATION_LIST, scoring)
        if not path.exists():
            raise InputError(
                f"{path}: no such file; a fusion is trained on the trials of calibration: run stage 6 with {scoring} "
                "and a scoring that ends in _linear or _qmf"
            )
    trials, scores = _read_together(experiments, CALIBRATION_LIST, scoring)
    calibration = train_calibration(scores, trials.labels, prior)
    for experiment, weight in zip(experiments, calibration.weights, strict=True):
        log.info("%s: weight %.4g", experiment, weight)
    return calibration


def _read_together(experiments: Sequence[Path], name: str, scoring: str) -> tuple[Trials, np.ndarray]:
    """Read the trials of a list, and the scores of each experiment, (n, systems)."""
    first: Trials | None = None
    columns = []
    for experiment in experiments:
        trials, scores = read_scores(score_file(experiment, name, scoring))
        first = first or trials
        check_same_trials(trials, first)
        check_scores(scores, trials, f"{experiment} {name}")
        columns.append(scores)
    return first, np.column_stack(columns)


def _joint_cost(results: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The sum of the systems' costs, if all are known."""
    known = all(key in one for one in results for key in COST_KEYS)
    return {key: sum(one[key] for one in results) for key in COST_KEYS} if known else {}


def _record(experiments: Sequence[Path], scoring: str, calibration: Calibration) -> dict[str, Any]:
    weights = dict(zip(map(str, experiments), calibration.weights.tolist(), strict=True))
    return {"scoring": scoring, "weights": weights, "bias": calibration.bias}
