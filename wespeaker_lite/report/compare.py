"""Tables that compare systems on the same trials, with paired intervals of their differences."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wespeaker_lite.core.config import nearest
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.kaldi.trials import Trials
from wespeaker_lite.recipe.scorings import is_calibrated
from wespeaker_lite.report.bootstrap import Resamples, holm, interval, p_value, replicate_metrics, resample_together
from wespeaker_lite.report.contents import show_interval
from wespeaker_lite.report.report import BootstrapOptions
from wespeaker_lite.report.tables import show, table, title
from wespeaker_lite.scoring.results import METRICS, read_results, shown_metrics, summarise
from wespeaker_lite.scoring.scores import check_same_trials, read_scores, score_file

log = logging.getLogger(__name__)

LEVEL = 0.05  # of the tests


@dataclass(frozen=True)
class System:
    """A system: its experiments, one for each seed of training, and its scoring. An empty one is that of the table."""

    name: str
    experiments: tuple[Path, ...]
    scoring: str = ""


@dataclass(frozen=True)
class Measured:
    """Values by metric: `seeds`, one for each seed, and `replicates` (R,), the mean over seeds in each replicate.

    Metrics of calibrated scores have no replicates.
    """

    seeds: dict[str, np.ndarray]
    replicates: dict[str, np.ndarray]


@dataclass(frozen=True)
class Comparison:
    """What to compare: trial lists, the default scoring, and the system with which the others are compared.

    mean: lists, one of each test set, over which a table has the mean with equal weights. draw_seeds: each replicate
    also draws seeds of training, so that intervals cover both. With only three seeds, intervals tend to be too narrow.
    """

    lists: tuple[str, ...]
    scoring: str = "cosine"
    baseline: str | None = None
    mean: tuple[str, ...] = ()
    draw_seeds: bool = False


def parse_system(text: str) -> System:
    """Parse `name[:scoring]=folder[,folder...]`.

    Raises:
        InputError: if a part is missing, or a folder is repeated.
    """
    label, _, folders = text.partition("=")
    name, colon, scoring = label.partition(":")
    paths = tuple(Path(folder) for folder in folders.split(",") if folder)
    if not name or (colon and not scoring) or not paths or len(set(paths)) != len(paths):
        raise InputError(
            f"--row {text!r}: expected NAME=EXPERIMENT[,EXPERIMENT...], each once, one for each seed (or NAME:SCORING=)"
        )
    return System(name, paths, scoring)


def compare(systems: Sequence[System], comparison: Comparison, options: BootstrapOptions) -> str:
    """Compare systems: for every trial list, a Markdown table of mean EER and minDCF over seeds with 95 % intervals.

    With a baseline, the difference of each other system to it is added, with an interval, paired by replicates, and the
    relative change. A star marks differences from 0 with a p-value below 5 %, corrected by Holm's method for all
    systems of the table and this metric.

    Raises:
        InputError: if score files are missing, the systems were not scored on the same trials, or there are too few
            speakers for intervals.
    """
    names = [system.name for system in systems]
    if len(set(names)) != len(names):
        raise InputError("two rows have the same name")
    baseline = comparison.baseline
    if baseline is not None and baseline not in names:
        raise InputError(f"--baseline {baseline!r} is not a row{nearest(baseline, names)}")
    measured, shown = _measure(systems, comparison, options), comparison.lists
    if comparison.mean:
        mean = f"mean of {', '.join(comparison.mean)}"
        measured[mean] = {name: _mean([measured[one][name] for one in comparison.mean]) for name in names}
        shown += (mean,)
    return "\n".join(
        f"### {name}, {comparison.scoring}\n\n{_table(systems, measured[name], baseline)}" for name in shown
    )


def _table(systems: Sequence[System], measured: Mapping[str, Measured], baseline: str | None) -> str:
    metrics = shown_metrics(mine.seeds for mine in measured.values())
    header = ["system", "params", "MACs (1 s)", "seeds"]
    for metric in metrics:
        header += [title(metric), *([f"against {baseline}"] if baseline and metric in METRICS else [])]
    others = [system.name for system in systems if baseline and system.name != baseline]
    marked = {metric: _differing(metric, measured, others, baseline) for metric in METRICS}
    rows = []
    for system in systems:
        mine = measured[system.name]
        row = [system.name, *_cost(system), len(system.experiments)]
        for metric in metrics:
            row.append(_figure(metric, mine) if metric in mine.seeds else "")
            if baseline and metric in METRICS:
                star = " *" if system.name in marked[metric] else ""
                row.append(_difference(metric, mine, measured[baseline]) + star if system.name in others else "")
        rows.append(row)
    return table(header, rows) + (_legend(others, baseline) if others else "")


def _differing(
    metric: str, measured: Mapping[str, Measured], others: Sequence[str], baseline: str | None
) -> frozenset[str]:
    """The systems whose difference to the baseline is significant, among all of the table."""
    differences = [measured[name].replicates[metric] - measured[baseline].replicates[metric] for name in others]
    corrected = holm([p_value(each) for each in differences])
    return frozenset(name for name, value in zip(others, corrected, strict=True) if value < LEVEL)


def _legend(others: Sequence[str], baseline: str) -> str:
    tests = f"{len(others)} tests" if len(others) > 1 else "one test"
    return (
        f"\n\\*: differs from {baseline}, p < {LEVEL:g} by bootstrap, with Holm's correction for {tests} of a column\n"
    )


def _measure(
    systems: Sequence[System], comparison: Comparison, options: BootstrapOptions
) -> dict[str, dict[str, Measured]]:
    """Measure all systems on all lists with the same draws of speakers, and of seeds for the same experiments."""
    lists = tuple(dict.fromkeys((*comparison.lists, *comparison.mean)))
    first = {name: read_scores(_scores(systems[0], systems[0].experiments[0], name, comparison))[0] for name in lists}
    draws = resample_together(first, options.utt2spk, options.replicates, options.seed)
    rng, seeds_drawn = np.random.default_rng(options.seed), {}
    measured: dict[str, dict[str, Measured]] = {name: {} for name in lists}
    for system in systems:
        if comparison.draw_seeds and system.experiments not in seeds_drawn:
            count = len(system.experiments)
            seeds_drawn[system.experiments] = rng.multinomial(count, np.full(count, 1 / count), options.replicates)
        for name in lists:
            weights = seeds_drawn.get(system.experiments)
            measured[name][system.name] = _measure_one(system, name, comparison, first[name], draws[name], weights)
    return measured


def _scores(system: System, experiment: Path, name: str, comparison: Comparison) -> Path:
    return score_file(experiment, name, system.scoring or comparison.scoring)


def _measure_one(
    system: System, name: str, comparison: Comparison, first: Trials, draws: Resamples, weights: np.ndarray | None
) -> Measured:
    """Measure a system on one list. `weights` (R, S) has how often each seed was drawn in each replicate."""
    seeds, replicates = [], []
    for experiment in system.experiments:
        path = _scores(system, experiment, name, comparison)
        trials, scores = read_scores(path)
        check_same_trials(trials, first)
        log.info("%s: %d replicates", path, len(draws.times))
        seeds.append(summarise(trials, scores, str(path), is_calibrated(system.scoring or comparison.scoring)))
        replicates.append(replicate_metrics(scores, trials.labels, draws))
    shares = None if weights is None else weights.T / len(seeds)
    return Measured(
        {metric: np.array([seed[metric] for seed in seeds]) for metric in shown_metrics(seeds)},
        {metric: _over_seeds(np.stack([one[metric] for one in replicates]), shares) for metric in METRICS},
    )


def _over_seeds(replicates: np.ndarray, shares: np.ndarray | None) -> np.ndarray:
    """The mean over seeds of (S, R) replicates, or their sum weighted by `shares` (S, R)."""
    return replicates.mean(axis=0) if shares is None else (replicates * shares).sum(axis=0)


def _mean(parts: Sequence[Measured]) -> Measured:
    """The mean over lists, for each seed and replicate, of the metrics that all lists have."""
    metrics = [metric for metric in parts[0].seeds if all(metric in part.seeds for part in parts)]
    return Measured(
        {metric: np.mean([part.seeds[metric] for part in parts], axis=0) for metric in metrics},
        {metric: np.mean([part.replicates[metric] for part in parts], axis=0) for metric in METRICS},
    )


def _cost(system: System) -> list[str]:
    results = read_results(system.experiments[0])
    if "params" not in results:
        return ["", ""]
    return [f"{results['params'] / 1e6:.2f} M", f"{results['macs_1s'] / 1e6:,.0f} M"]


def _figure(metric: str, mine: Measured) -> str:
    """The mean over seeds, its interval and, with several seeds, their standard deviation."""
    seeds = mine.seeds[metric]
    spread = f" ±{show(metric, seeds.std(ddof=1))}" if len(seeds) > 1 else ""
    bounds = show_interval(metric, interval(mine.replicates[metric])) if metric in mine.replicates else ""
    return show(metric, seeds.mean()) + spread + bounds


def _difference(metric: str, mine: Measured, other: Measured) -> str:
    difference = mine.seeds[metric].mean() - other.seeds[metric].mean()
    bounds = interval(mine.replicates[metric] - other.replicates[metric])
    relative = f" ({100 * difference / other.seeds[metric].mean():+.0f} %)" if other.seeds[metric].mean() else ""
    return show(metric, difference, "+") + show_interval(metric, bounds, "+") + relative
