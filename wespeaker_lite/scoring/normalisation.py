"""Score normalisation against a cohort: S-norm, and AS-norm with an adaptive cohort."""

import logging
from dataclasses import dataclass

import numpy as np

from wespeaker_lite.core.errors import InputError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CohortStatistics:
    """Mean and standard deviation of each utterance's scores against the cohort, (N,) float64 each."""

    mean: np.ndarray
    std: np.ndarray


def cohort_statistics(
    unit: np.ndarray,
    cohort: np.ndarray,
    top_n: int | None = None,
    block_mb: float = 64,
    own: np.ndarray | None = None,
) -> CohortStatistics:
    """Score utterances `unit` (N, D) against `cohort` (C, D), both of unit norm; compute the statistics of scores.

    Only the `top_n` highest scores of each utterance are used (AS-norm), or all if it is None (S-norm). If the cohort
    is smaller, all are used, and a warning is logged. If the speakers of the utterances are in the cohort, `own` (N,)
    has their rows, which are excluded. Scores need `block_mb` megabytes.

    Raises:
        InputError: if the cohort scores of an utterance are all equal.
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
    std = np.sqrt(np.maximum(square - mean**2, 0))
    if not (std > 1e-6).all():
        raise InputError(f"the scores of an utterance against {count} of the cohort are all equal: use a larger cohort")
    return CohortStatistics(mean, std)


def _cohort_size(available: int, top_n: int | None) -> int:
    if top_n is None:
        return available
    if top_n < 2:
        raise InputError(f"--top-n {top_n}: AS-norm needs at least 2 of the cohort")
    if top_n > available:
        log.warning("the cohort has only %d of the %d members of --top-n; all of it is used", available, top_n)
    return min(top_n, available)


def normalise_scores(
    scores: np.ndarray, enroll: np.ndarray, test: np.ndarray, statistics: CohortStatistics
) -> np.ndarray:
    """Normalise scores (n,) by the cohort statistics of rows `enroll` and `test` (n,); float64.

    The result is the mean of two z-scores, one with the statistics of each side. It is S-norm with statistics of the
    whole cohort, and AS-norm1 with those of an adaptive cohort (Matejka et al. 2017, "Analysis of score normalization
    in multilingual speaker recognition", Interspeech, section 2).
    """
    inverse = 1 / statistics.std
    scale = inverse[enroll] + inverse[test]
    offset = (statistics.mean * inverse)[enroll] + (statistics.mean * inverse)[test]
    return 0.5 * (scores * scale - offset)
