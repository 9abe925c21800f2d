"""Tables that compare systems on the same trials, with paired intervals of their differences."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wespeaker_lite.core.config import nearest
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.kaldi.trials import Trials
from wespeaker_lite.report.bootstrap import interval, replicate_metrics, resample_speakers
from wespeaker_lite.report.report import BootstrapOptions, show_interval
from wespeaker_lite.scoring.results import METRICS, read_results, show, shown_metrics, summarise, table, title
from wespeaker_lite.scoring.scores import check_same_trials, read_scores, score_file
from wespeaker_lite.scoring.scorings import is_calibrated

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class System:
    """A row of the table: one system, the folders of its experiments, one for each seed of training, and its scoring.

    An empty scoring is that of the table.
    """

    name: str
    experiments: tuple[Path, ...]
    scoring: str = ""


@dataclass(frozen=True)
class Measured:
    """By metric: `seeds`, a figure for each seed, and `replicates` (R,), the mean of seeds in each replicate.

    Of calibrated scores, there are metrics without replicates.
    """

    seeds: dict[str, np.ndarray]
    replicates: dict[str, np.ndarray]


def parse_system(text: str) -> System:
    """Read `name[:scoring]=folder[,folder...]`.

    Raises:
        InputError: where a part is missing, or a folder stands twice.
    """
    label, _, folders = text.partition("=")
    name, colon, scoring = label.partition(":")
    paths = tuple(Path(folder) for folder in folders.split(",") if folder)
    if not name or (colon and not scoring) or not paths or len(set(paths)) != len(paths):
        raise InputError(
            f"--row {text!r}: expected NAME=EXPERIMENT[,EXPERIMENT...], each once, one for each seed (or NAME:SCORING=)"
        )
    return System(name, paths, scoring)


def compare(
    systems: Sequence[System], lists: Sequence[str], scoring: str, baseline: str | None, options: BootstrapOptions
) -> str:
    """Compare systems: for every trial list a Markdown table of mean EER and minDCF over seeds with 95 % intervals.

    With a baseline (a system's name), each other system's difference to it is given with an interval of its own, paired
    by replicates, and the relative change.

    Raises:
        InputError: where score files are missing, the systems were not scored on the same trials, or intervals are
            asked of too few speakers.
    """
    names = [system.name for system in systems]
    if len(set(names)) != len(names):
        raise InputError("two rows have the same name")
    if baseline is not None and baseline not in names:
        raise InputError(f"--baseline {baseline!r} is no row{nearest(baseline, names)}")
    tables = {name: _compare_list(systems, name, scoring, baseline, options) for name in lists}
    return "\n".join(f"### {name}, {scoring}\n\n{text}" for name, text in tables.items())


def _compare_list(
    systems: Sequence[System], name: str, scoring: str, baseline: str | None, options: BootstrapOptions
) -> str:
    measured = _measure(systems, name, scoring, options)
    metrics = shown_metrics(mine.seeds for mine in measured.values())
    header = ["system", "params", "MACs (1 s)", "seeds"]
    for metric in metrics:
        header += [title(metric), *([f"against {baseline}"] if baseline and metric in METRICS else [])]
    rows = []
    for system in systems:
        mine = measured[system.name]
        row = [system.name, *_cost(system), len(system.experiments)]
        for metric in metrics:
            row.append(_figure(metric, mine) if metric in mine.seeds else "")
            if baseline and metric in METRICS:
                row.append(_difference(metric, mine, measured[baseline]) if system.name != baseline else "")
        rows.append(row)
    return table(header, rows)


def _measure(systems: Sequence[System], name: str, scoring: str, options: BootstrapOptions) -> dict[str, Measured]:
    """Measure all systems by the same draws of speakers."""
    first: Trials | None = None
    measured = {}
    for system in systems:
        seeds, replicates = [], []
        own = system.scoring or scoring
        for experiment in system.experiments:
            path = score_file(experiment, name, own)
            trials, scores = read_scores(path)
            if first is None:
                first = trials
                draws = resample_speakers(trials, options.utt2spk, options.replicates, options.seed)
            check_same_trials(trials, first)
            log.info("%s: %d replicates", path, options.replicates)
            seeds.append(summarise(trials, scores, str(path), is_calibrated(own)))
            replicates.append(replicate_metrics(scores, trials.labels, draws))
        measured[system.name] = Measured(
            {metric: np.array([seed[metric] for seed in seeds]) for metric in shown_metrics(seeds)},
            {metric: np.mean([one[metric] for one in replicates], axis=0) for metric in METRICS},
        )
    return measured


def _cost(system: System) -> list[str]:
    results = read_results(system.experiments[0])
    if "params" not in results:
        return ["", ""]
    return [f"{results['params'] / 1e6:.2f} M", f"{results['macs_1s'] / 1e6:,.0f} M"]


def _figure(metric: str, mine: Measured) -> str:
    """Mean over seeds, its interval, and where there are several seeds their standard deviation."""
    seeds = mine.seeds[metric]
    spread = f" ±{show(metric, seeds.std(ddof=1))}" if len(seeds) > 1 else ""
    bounds = show_interval(metric, interval(mine.replicates[metric])) if metric in mine.replicates else ""
    return show(metric, seeds.mean()) + spread + bounds


def _difference(metric: str, mine: Measured, other: Measured) -> str:
    difference = mine.seeds[metric].mean() - other.seeds[metric].mean()
    bounds = interval(mine.replicates[metric] - other.replicates[metric])
    relative = f" ({100 * difference / other.seeds[metric].mean():+.0f} %)" if other.seeds[metric].mean() else ""
    return show(metric, difference, "+") + show_interval(metric, bounds, "+") + relative
