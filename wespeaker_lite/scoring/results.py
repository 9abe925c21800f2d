"""The results.json of an experiment."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.files import read_json, write_text
from wespeaker_lite.kaldi.trials import Trials
from wespeaker_lite.recipe.stamps import check_made
from wespeaker_lite.scoring.metrics import (
    P_TARGETS,
    check_scores,
    eer_threshold,
    measure,
    measure_calibrated,
    operating_points,
)

COST_KEYS = ("params", "macs_1s")
METRICS = ("eer", *(f"mindcf_p{p_target}" for p_target in P_TARGETS))
CALIBRATED_METRICS = (*(f"actdcf_p{p_target}" for p_target in P_TARGETS), "cllr", "min_cllr")


def summarise(trials: Trials, scores: np.ndarray, where: str, calibrated: bool = False) -> dict[str, float | int]:
    """Compute the metrics of scores (n,): EER as a fraction of 1 and its threshold, minDCF, and numbers of trials.

    `calibrated`: the scores are log-likelihood ratios, so actDCF and Cllr are added.

    Raises:
        InputError: as `check_scores`.
    """
    check_scores(scores, trials, where)
    points = operating_points(scores, trials.labels)
    figures = {name: float(value) for name, value in measure(points.miss, points.false_alarm).items()}
    figures["eer_threshold"] = eer_threshold(points)
    if calibrated:
        figures |= measure_calibrated(scores, trials.labels)
    targets = int(trials.labels.sum())
    return {**figures, "trials": len(scores), "targets": targets, "nontargets": len(scores) - targets}


def write_results(path: str | Path, results: Mapping[str, Any]) -> None:
    """Write results.json. It appears whole or not at all."""
    write_text(path, json.dumps(results, indent=2) + "\n")


def read_results(experiment: str | Path) -> dict[str, Any]:
    """Read an experiment's results.json.

    Raises:
        InputError: where it is missing or not what stage 6 has written.
    """
    path = Path(experiment) / "results.json"
    if not path.exists():
        raise InputError(f"{path}: no such file; run stage 6 first")
    check_made(path)
    results = read_json(path)
    if not isinstance(results.get("trials"), dict):
        raise InputError(f"{path}: no trial lists in it; run stage 6 again")
    return results


def read_cost(path: str | Path) -> dict[str, int]:
    """Read `params` and `macs_1s` from the JSON that `wespeaker_lite.bin.cost` prints.

    Raises:
        InputError: if the file is not JSON or lacks one of them.
    """
    cost = read_json(Path(path))
    missing = [key for key in COST_KEYS if key not in cost]
    if missing:
        raise InputError(f"{path}: no {missing[0]!r} in it; it is made by: python -m wespeaker_lite.bin.cost")
    return {key: cost[key] for key in COST_KEYS}


def mean_of_lists(results: Mapping[str, Mapping[str, Any]], lists: Sequence[str]) -> dict[str, Any]:
    """The mean of each metric over lists, with equal weights, by scoring; and the names of the lists.

    Raises:
        InputError: for a list that was not scored.
    """
    unknown = [name for name in lists if name not in results]
    if unknown:
        raise InputError(f"--mean {unknown[0]}: no such list; there are: {' '.join(results)}")
    scorings = {}
    for scoring in results[lists[0]]:
        rows = [results[name][scoring] for name in lists]
        metrics = [metric for metric in shown_metrics(rows) if all(metric in row for row in rows)]
        scorings[scoring] = {metric: float(np.mean([row[metric] for row in rows])) for metric in metrics}
    return {"lists": list(lists), "scorings": scorings}


def iter_mean(results: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the name, scoring and metrics of the mean over test sets, as `iter_results`. Nothing without a mean."""
    mean = results.get("mean", {"lists": [], "scorings": {}})
    for scoring, figures in mean["scorings"].items():
        yield f"mean of {len(mean['lists'])}", scoring, figures


def iter_results(results: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield trial list, scoring and metrics."""
    for trials, scorings in results["trials"].items():
        for scoring, figures in scorings.items():
            yield trials, scoring, figures


def shown_metrics(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The metrics that any row of a table has, in the order of columns."""
    known = set().union(*rows)
    return [metric for metric in (*METRICS, *CALIBRATED_METRICS) if metric in known]
