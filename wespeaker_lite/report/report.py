"""The report of one experiment: its figures with intervals, and pictures."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.files import read_json, write_text
from wespeaker_lite.kaldi.trials import Trials
from wespeaker_lite.report.bootstrap import (
    Resamples,
    TooFewSpeakersError,
    interval,
    replicate_metrics,
    resample_together,
)
from wespeaker_lite.report.plots import Scored, draw_pictures
from wespeaker_lite.report.tables import show, show_counts, show_one, table, title
from wespeaker_lite.scoring.results import (
    METRICS,
    iter_mean,
    iter_results,
    read_results,
    shown_metrics,
)
from wespeaker_lite.scoring.scores import check_same_trials, read_scores, score_file

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BootstrapOptions:
    """The speaker of each utterance (None: no intervals), the number of replicates, and the seed of their draws."""

    utt2spk: Mapping[str, str] | None = None
    replicates: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.replicates < 100:
            raise InputError(f"--replicates {self.replicates}: the ends of an interval need at least 100")


def write_report(experiment: str | Path, options: BootstrapOptions, attention: str | Path | None = None) -> str:
    """Write `report/report.md` and the pictures of a scored experiment; gives the text of report.md.

    attention: the figures that `attention_maps.write_attention` has left in `report/`, to be shown too.

    Raises:
        InputError: where results or scores are missing, or a score file is not of the run that wrote results.json.
    """
    experiment = Path(experiment)
    results = read_results(experiment)
    metrics = shown_metrics(figures for _, _, figures in iter_results(results))
    first = {
        name: read_scores(score_file(experiment, name, next(iter(of))))[0] for name, of in results["trials"].items()
    }
    draws = _draw(first, tuple(results.get("mean", {}).get("lists", ())), options)
    rows, scored, replicates = [], {}, {}
    for name, scoring, figures in iter_results(results):
        trials, scores = read_scores(score_file(experiment, name, scoring))
        if len(scores) != figures["trials"]:
            raise InputError(f"{experiment}: {name}.{scoring}.score does not fit results.json; run stage 6 again")
        check_same_trials(trials, first[name])
        log.info("%s %s: %d trials", name, scoring, len(trials))
        if name in draws:
            replicates[name, scoring] = replicate_metrics(scores, trials.labels, draws[name])
        rows.append([name, scoring, *_cells(metrics, figures, replicates.get((name, scoring)))])
        scored[name, scoring] = Scored(scores, trials.labels)
    for name, scoring, figures in iter_mean(results):
        parts = [replicates.get((one, scoring)) for one in results["mean"]["lists"]]
        mean = {metric: np.mean([part[metric] for part in parts], axis=0) for metric in METRICS} if all(parts) else None
        rows.append([name, scoring, *_cells(metrics, figures, mean)])
    figures = table(["trials", "scoring", *map(title, metrics)], rows)
    text = _text(experiment.name, results, figures, options.replicates if draws else 0)
    pictures = draw_pictures(experiment / "report", scored)
    if pictures:
        text += "\n![DET curves](det.png)\n"
    if attention is not None:
        text += _attention(read_json(Path(attention)))
    write_text(experiment / "report" / "report.md", text)
    return text


def _draw(lists: Mapping[str, Trials], mean: Sequence[str], options: BootstrapOptions) -> dict[str, Resamples]:
    """Draw speakers, for the lists of the mean at once. A list too small for that has no intervals."""
    if options.utt2spk is None:
        return {}
    draws: dict[str, Resamples] = {}
    for names in (tuple(mean), *((name,) for name in lists)):
        if not names or draws.keys() >= set(names):
            continue
        try:
            together = {name: lists[name] for name in names}
            draws |= resample_together(together, options.utt2spk, options.replicates, options.seed)
        except TooFewSpeakersError as error:
            log.warning("%s: no intervals: %s", " ".join(names), error)
    return draws


def _cells(
    metrics: Sequence[str], figures: Mapping[str, Any], replicates: Mapping[str, np.ndarray] | None
) -> list[str]:
    """Figures, with intervals where there are replicates."""
    cells = []
    for metric in metrics:
        drawn = replicates is not None and metric in replicates
        cells.append(show_one(metric, figures) + (show_interval(metric, interval(replicates[metric])) if drawn else ""))
    return cells


def show_interval(metric: str, bounds: tuple[float, float], sign: str = "") -> str:
    """An interval's ends in brackets, with a space before it."""
    low, high = (show(metric, value, sign) for value in bounds)
    return f" [{low}, {high}]"


def _text(name: str, results: Mapping[str, Any], figures: str, replicates: int) -> str:
    lines = [f"# {name}\n", *(f"{line}\n" for line in show_counts(results))]
    if "params" in results:
        macs = results["macs_1s"] / 1e6
        lines.append(f"{results['params']:,} parameters, {macs:,.1f} M multiply-accumulates for 1 s.\n")
    if replicates:
        lines.append(f"In brackets: 95 % intervals by bootstrap over speakers, {replicates} replicates.\n")
    if "mean" in results:
        lines.append(f"The mean counts each list as much: {', '.join(results['mean']['lists'])}.\n")
    return "\n".join([*lines, figures])


def _attention(figures: Mapping[str, Any]) -> str:
    """How near the students' attention maps are to the teacher's, and the picture, where it was drawn."""
    teacher, divergence = figures["teacher"], {**figures["kl"], "(all alike)": figures["flat"]}
    rows = [[name, *(f"{value:.3g}" for value in values)] for name, values in divergence.items()]
    text = (
        f"\nSelf-attention of the last block of each stage, averaged over heads: KL({teacher} || student) in nats, the "
        f"mean over rows and the first {figures['utterances']} test utterances, at most {figures['seconds']:g} s of "
        "each. The last row is of a student that attends to all frames alike.\n\n"
    ) + table(["student", *(f"stage {number}" for number in range(1, len(rows[0])))], rows)
    entropies = {**figures["entropy"], "(all alike)": figures["flat_entropy"]}
    rows = [[name, *(f"{value:.3g}" for value in values)] for name, values in entropies.items()]
    text += "\nEntropy of a row of a head, in nats, the mean over all: the lower, the sharper a network attends.\n\n"
    text += table(["network", *(f"stage {number}" for number in range(1, len(rows[0])))], rows)
    if figures["picture"]:
        text += (
            f"\n![Attention maps]({figures['picture']})\n\nThe maps for the beginning of {figures['utterance']}: "
            "each row of a map is a query and shows where in time it looks.\n"
        )
    return text
