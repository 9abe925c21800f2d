"""Means and cohorts by corpus, for pools. They remove what a corpus has in common, such as channel and language.

The corpus of an utterance or a speaker is the part of its id before the first `-`, as in ids of `--corpus pool`.
"""

import logging
import zlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.extraction.embeddings import Cohort
from wespeaker_lite.recipe.scoring_config import By
from wespeaker_lite.scoring.normalisation import CohortStatistics, cohort_statistics

log = logging.getLogger(__name__)

MIN_MEMBERS = 10  # a smaller corpus has no mean and no cohort of its own

Group = tuple[np.ndarray, np.ndarray]  # rows of utterances, and rows of their cohort


def corpus_of(name: str) -> str:
    """The corpus of an id.

    Raises:
        InputError: if the id has none.
    """
    corpus, dash, _ = name.partition("-")
    if not corpus or not dash:
        raise InputError(f"{name!r} does not begin with a corpus, as ids of --corpus pool do: set scoring.mean and"
                         " scoring.cohort to all")  # fmt: skip
    return corpus


def rows_by_corpus(names: Iterable[str]) -> dict[str, np.ndarray]:
    """The rows of each corpus. `names` are in the order of rows."""
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows.setdefault(corpus_of(name), []).append(row)
    return {corpus: np.array(numbers) for corpus, numbers in rows.items()}


def with_balanced_mean(cohort: Cohort) -> Cohort:
    """Replace the mean of a cohort by the mean of the means of its corpora."""
    rows = rows_by_corpus(cohort.embeddings.index)
    means = [cohort.embeddings.vectors[numbers].mean(axis=0, dtype=np.float64) for numbers in rows.values()]
    return replace(cohort, mean=np.mean(means, axis=0).astype(np.float32))


def means_by_corpus(names: Sequence[str], cohort: Cohort) -> np.ndarray:
    """The mean of each name's corpus, (N, D) float32, or the cohort's mean if the cohort has too few of the corpus."""
    members = _large(rows_by_corpus(cohort.embeddings.index))
    means = np.repeat(cohort.mean[np.newaxis], len(names), axis=0)
    for corpus, rows in rows_by_corpus(names).items():
        if corpus in members:
            means[rows] = cohort.embeddings.vectors[members[corpus]].mean(axis=0, dtype=np.float64)
    return means


def cohort_groups(names: Sequence[str], cohort: Cohort, by: By) -> list[Group]:
    """The cohort of each utterance.

    `all`: all members. `balanced`: equally many of each corpus, as many as the smallest has, drawn with a fixed seed.
    `corpus`: those of the utterance's own corpus, or all if the cohort has fewer than ten of it.
    """
    everyone, utterances = np.arange(len(cohort.embeddings.vectors)), np.arange(len(names))
    if by == "all":
        return [(utterances, everyone)]
    members = rows_by_corpus(cohort.embeddings.index)
    if by == "balanced":
        return [(utterances, np.sort(np.concatenate(_drawn(members))))]
    large = _large(members)
    groups = []
    for corpus, rows in rows_by_corpus(names).items():
        if corpus not in large:
            log.warning("the cohort has fewer than %d of corpus %s: all of it is used there", MIN_MEMBERS, corpus)
        groups.append((rows, large.get(corpus, everyone)))
    return groups


def _large(members: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {corpus: rows for corpus, rows in members.items() if len(rows) >= MIN_MEMBERS}


def _drawn(members: dict[str, np.ndarray]) -> list[np.ndarray]:
    count = min(map(len, members.values()))
    # The draw of a corpus depends on other corpora only by the number.
    return [
        np.random.default_rng(zlib.crc32(name.encode())).permutation(rows)[:count] for name, rows in members.items()
    ]


def smallest_cohort(names: Collection[str], by: By) -> int:
    """The number of members in the smallest cohort that `cohort_groups` can give of members of these names."""
    if by == "all":
        return len(names)
    members = rows_by_corpus(names)
    if by == "balanced":
        return sum(map(len, _drawn(members)))
    return min(map(len, _large(members).values()), default=len(names))


def grouped_statistics(
    unit: np.ndarray,
    cohort: np.ndarray,
    groups: Sequence[Group],
    top_n: int | None,
    block_mb: float,
    own: np.ndarray | None,
) -> CohortStatistics:
    """Compute `cohort_statistics` of each group. `own` (N,) has rows of the whole cohort, which a group may lack.

    Raises:
        InputError: as `cohort_statistics`.
    """
    mean, std = np.empty(len(unit)), np.empty(len(unit))
    for rows, members in groups:
        place = np.full(len(cohort), -1)
        place[members] = np.arange(len(members))
        mine = place[own[rows]] if own is not None else np.full(len(rows), -1)
        for some, is_in in ((mine >= 0, True), (mine < 0, False)):
            if some.any():
                rest = mine[some] if is_in else None
                found = cohort_statistics(unit[rows[some]], cohort[members], top_n, block_mb, rest)
                mean[rows[some]], std[rows[some]] = found.mean, found.std
    return CohortStatistics(mean, std)
