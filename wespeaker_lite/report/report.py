"""The report of an experiment: metrics with intervals, and pictures."""

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
from wespeaker_lite.report.contents import Contents, Row, about_maps, about_stages
from wespeaker_lite.report.html_report import write_html
from wespeaker_lite.report.plots import Scored, draw_pictures
from wespeaker_lite.report.tables import table, title
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
    """The speaker of each utterance (None: no intervals), the number of replicates, and the seed."""

    utt2spk: Mapping[str, str] | None = None
    replicates: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.replicates < 100:
            raise InputError(f"--replicates {self.replicates}: an interval needs at least 100")


def write_report(experiment: str | Path, options: BootstrapOptions, attention: str | Path | None = None) -> str:
    """Write report.md, report.html and the pictures of a scored experiment into `report/`. Return report.md's text.

    attention: the .json of `attention_maps.write_attention`, to include its values.

    Raises:
        InputError: if results or scores are missing, or a score file does not fit results.json.
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
        rows.append(Row(name, scoring, figures, _intervals(replicates.get((name, scoring)))))
        scored[name, scoring] = Scored(scores, trials.labels)
    for name, scoring, figures in iter_mean(results):
        parts = [replicates.get((one, scoring)) for one in results["mean"]["lists"]]
        mean = {metric: np.mean([part[metric] for part in parts], axis=0) for metric in METRICS} if all(parts) else None
        rows.append(Row(name, scoring, figures, _intervals(mean)))
    contents = Contents(
        experiment,
        results,
        metrics,
        rows,
        options.replicates if draws else 0,
        None if attention is None else read_json(Path(attention)),
        draw_pictures(experiment / "report", scored),
    )
    text = _markdown(contents)
    write_text(contents.folder / "report.md", text)
    write_html(contents)
    return text


def _draw(lists: Mapping[str, Trials], mean: Sequence[str], options: BootstrapOptions) -> dict[str, Resamples]:
    """Draw speakers, together for the lists of the mean. A list with too few speakers has no intervals."""
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


def _intervals(replicates: Mapping[str, np.ndarray] | None) -> dict[str, tuple[float, float]]:
    return {metric: interval(values) for metric, values in (replicates or {}).items()}


def _markdown(contents: Contents) -> str:
    rows = [[row.trials, row.scoring, *map(row.shown, contents.metrics)] for row in contents.rows]
    figures = table(["trials", "scoring", *map(title, contents.metrics)], rows)
    notes = (f"{line}\n" for line in contents.notes())
    text = "\n".join([f"# {contents.experiment.name}\n", *notes, figures])
    if contents.pictures:
        text += "\n![DET curves](det.png)\n"
    return text + (_attention(contents.attention) if contents.attention else "")


def _attention(figures: Mapping[str, Any]) -> str:
    """The section on attention maps, with the picture if it was drawn."""
    text = ""
    for part in about_stages(figures):
        rows = [[name, *(f"{value:.3g}" for value in values)] for name, values in part.rows.items()]
        text += f"\n{part.about}\n\n" + table(part.header, rows)
    if figures["picture"]:
        text += f"\n![Attention maps]({figures['picture']})\n\n{about_maps(figures)}\n"
    return text
