"""From embeddings and trial lists to score files and results.json."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wespeaker_lite.config import nearest
from wespeaker_lite.data.trials import Trials, check_known, read_trials
from wespeaker_lite.errors import InputError
from wespeaker_lite.scoring.cosine import cosine_scores
from wespeaker_lite.scoring.embeddings import Cohort, Embeddings
from wespeaker_lite.scoring.normalisation import CohortStatistics, cohort_statistics, normalise_scores
from wespeaker_lite.scoring.results import summarise
from wespeaker_lite.scoring.scores import DECIMALS, write_scores

log = logging.getLogger(__name__)

SCORINGS = ("cosine", "snorm", "asnorm")


@dataclass(frozen=True)
class ScoringOptions:
    """Which scorings to make, the size of AS-norm's adaptive cohort, and the working memory in megabytes."""

    scorings: tuple[str, ...] = SCORINGS
    top_n: int = 300
    block_mb: float = 64

    def __post_init__(self) -> None:
        for scoring in self.scorings:
            if scoring not in SCORINGS:
                raise InputError(f"unknown scoring {scoring!r}{nearest(scoring, SCORINGS)}")
        if not self.scorings:
            raise InputError(f"no scoring is asked for; known: {', '.join(SCORINGS)}")
        if self.block_mb <= 0:
            raise InputError(f"--block-mb {self.block_mb:g}: working memory must be more than 0")


def read_trial_lists(paths: Iterable[str | Path]) -> dict[str, Trials]:
    """Read trial lists by the names of their files.

    Raises:
        InputError: for a bad list, or two of one name, whose scores would overwrite each other.
    """
    lists: dict[str, Trials] = {}
    for path in map(Path, paths):
        if path.name in lists:
            raise InputError(f"{path}: another list is called {path.name!r} too; rename one")
        lists[path.name] = read_trials(path)
    return lists


def score_lists(
    embeddings: Embeddings, cohort: Cohort | None, lists: Mapping[str, Trials], options: ScoringOptions, out: Path
) -> dict[str, dict[str, Any]]:
    """Score every list in every way, write `out`/scores/<list>.<scoring>.score, and give the figures of each.

    With a cohort, the mean of its utterances is subtracted from all embeddings. The figures are those of the scores as
    they are written, rounded.

    Raises:
        InputError: where a trial's utterance has no embedding, normalisation is asked for without a cohort, or a list
            cannot be measured.
    """
    for trials in lists.values():
        check_known(trials, embeddings.index)
    used = dict.fromkeys(utterance for trials in lists.values() for utterance in (*trials.enroll, *trials.test))
    unit = embeddings.select(list(used)).unit(cohort.mean if cohort else None)
    statistics = _statistics(unit, cohort, options)
    results: dict[str, dict[str, Any]] = {}
    for name, trials in lists.items():
        log.info("%s: %d trials", name, len(trials))
        rows = unit.rows(trials.enroll), unit.rows(trials.test)
        cosine = cosine_scores(unit.vectors, *rows, options.block_mb)
        results[name] = {}
        for scoring in options.scorings:
            scores = cosine if scoring == "cosine" else normalise_scores(cosine, *rows, statistics[scoring])
            scores = np.round(scores.astype(np.float64), DECIMALS)
            results[name][scoring] = summarise(trials, scores, f"{name} {scoring}")
            write_scores(out / "scores" / f"{name}.{scoring}.score", trials, scores)
    return results


def _statistics(unit: Embeddings, cohort: Cohort | None, options: ScoringOptions) -> dict[str, CohortStatistics]:
    cohort_sizes = {"snorm": None, "asnorm": options.top_n}
    wanted = [scoring for scoring in options.scorings if scoring in cohort_sizes]
    if not wanted:
        return {}
    if cohort is None:
        raise InputError(f"{wanted[0]} compares with a cohort: name one with --cohort, or ask for --scorings cosine")
    impostors = cohort.embeddings.unit(cohort.mean).vectors
    return {
        scoring: cohort_statistics(unit.vectors, impostors, cohort_sizes[scoring], options.block_mb)
        for scoring in wanted
    }
