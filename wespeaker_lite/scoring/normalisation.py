"""Score normalisation against a cohort: S-norm, and AS-norm with an adaptive cohort."""

import logging
from dataclasses import dataclass

import numpy as np

from wespeaker_lite.core.errors import InputError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CohortStatistics:
    """Mean and standard deviation, (N,) float64 each, of every utterance's scores against the cohort."""

    mean: np.ndarray
    deviation: np.ndarray


def cohort_statistics(
    unit: np.ndarray,
    cohort: np.ndarray,
    top_n: int | None = None,
    block_mb: float = 64,
    own: np.ndarray | None = None,
) -> CohortStatistics:
    """Score utterances `unit` (N, D) against `cohort` (C, D), both of length 1, and keep mean and spread of each.

    Of every row the `top_n` highest scores count (AS-norm), or with None all of them (S-norm). Where the cohort has
    fewer, all count, and the log says so. Of utterances whose speakers are in the cohort, `own` (N,) has the speaker's
    row there, which is left out: no one is an impostor to oneself. Scores in work take `block_mb` megabytes.

    Raises:
        InputError: where the cohort scores of an utterance do not differ: there is no spread to divide by.
    """
    count = _cohort_size(len(cohort) - (own is not None), top_n)
    mean, square = np.empty(len(unit)), np.empty(len(unit))
    step = max(1, int(block_mb * 2**20) // (cohort.itemsize * len(cohort)))
    buffer = np.empty((min(step, len(unit)), len(cohort)), np.float32)
    for start in range(0, len(unit), step):
        block = slice(start, start + step)
        scores = np.matmul(unit[block], cohort.T, out=buffer[: len(unit) - start])
        if own is not None:
            scores[np.arange(len(scores)), own[block]] = -np.inf
        if count < len(cohort):
            scores.partition(len(cohort) - count, axis=1)
            scores = scores[:, len(cohort) - count :]
        mean[block] = scores.mean(axis=1, dtype=np.float64)
        square[block] = np.einsum("ij,ij->i", scores, scores, dtype=np.float64) / count
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    if not (deviation > 1e-6).all():
        raise InputError(f"the scores of an utterance against {count} of the cohort are all equal: use a larger cohort")
    return CohortStatistics(mean, deviation)


def _cohort_size(available: int, top_n: int | None) -> int:
    if top_n is None:
        return available
    if top_n < 2:
        raise InputError(f"--top-n {top_n}: AS-norm needs at least 2 of the cohort")
    if top_n > available:
        log.warning("the cohort has only %d of the %d asked for by --top-n; all of it is used", available, top_n)
    return min(top_n, available)


def normalise_scores(
    scores: np.ndarray, enroll: np.ndarray, test: np.ndarray, statistics: CohortStatistics
) -> np.ndarray:
    """Normalise scores (n,) by the cohort statistics of rows `enroll` and `test` (n,); float64.

    The mean of the two z-scores, each by the statistics of its own side: S-norm, or "AS-norm1" of Matejka et al. 2017
    ("Analysis of score normalization in multilingual speaker recognition", Interspeech, section 2), as statistics are
    of the whole or of the nearest cohort.
    """
    inverse = 1 / statistics.deviation
    scale = inverse[enroll] + inverse[test]
    offset = (statistics.mean * inverse)[enroll] + (statistics.mean * inverse)[test]
    return 0.5 * (scores * scale - offset)
