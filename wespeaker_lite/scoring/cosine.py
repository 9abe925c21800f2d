"""Cosine scores of trials, in blocks."""

import numpy as np

# Vectors of trials are gathered in blocks that fit into the L2 cache. Larger blocks took three times as long (measured:
# 115 ns per trial at 0.5 to 1 MB, 440 ns at 50 MB; 192 dimensions).
GATHER_BYTES = 2**20

# A gathered trial takes as long as about this many scores of a full matrix product, which has no random access
# (measured on one thread: 10 to 15).
PRODUCT_SCORES_PER_TRIAL = 12

# Trials per step: a list may be dense only in parts, and the indices of a span need about 12 MB.
SPAN = 2**18

# Rows of the enrolments and of the tests of trials, (n,) each.
Rows = tuple[np.ndarray, np.ndarray]


def cosine_scores(unit: np.ndarray, enroll: np.ndarray, test: np.ndarray, block_mb: float = 64) -> np.ndarray:
    """Score trials: the dot products of vectors in `unit` (N, D), float32 of unit norm.

    `enroll` and `test` (n,) are rows of `unit`. Returns (n,) float32. Vectors and products need at most `block_mb`
    megabytes, besides the indices of a span of trials.
    """
    scores = np.empty(len(enroll), np.float32)
    for start in range(0, len(enroll), SPAN):
        span = slice(start, start + SPAN)
        _score_span(unit, (enroll[span], test[span]), scores[span], int(block_mb * 2**20))
    return scores


def _score_span(unit: np.ndarray, trials: Rows, scores: np.ndarray, block: int) -> None:
    enroll, test = (_distinct(rows, len(unit)) for rows in trials)
    products = len(enroll) * len(test)
    needed = unit.itemsize * (products + (len(enroll) + len(test)) * unit.shape[1])
    if products <= PRODUCT_SCORES_PER_TRIAL * len(scores) and needed <= block:
        enroll_at, test_at = _places(enroll, len(unit))[trials[0]], _places(test, len(unit))[trials[1]]
        scores[:] = (unit[enroll] @ unit[test].T)[enroll_at, test_at]
    else:
        _score_by_gathering(unit, trials, scores, block)


def _distinct(rows: np.ndarray, total: int) -> np.ndarray:
    """The unique rows in ascending order. This takes linear time, while np.unique would sort."""
    seen = np.zeros(total, dtype=bool)
    seen[rows] = True
    return np.flatnonzero(seen)


def _places(distinct: np.ndarray, total: int) -> np.ndarray:
    """For each row, its index among the unique ones."""
    places = np.empty(total, np.int64)
    places[distinct] = np.arange(len(distinct))
    return places


def _score_by_gathering(unit: np.ndarray, trials: Rows, scores: np.ndarray, block: int) -> None:
    """Score trials in blocks, by gathering both vectors of each trial."""
    size = unit.shape[1]
    step = max(1, min(block, GATHER_BYTES) // (2 * unit.itemsize * size))
    buffers = np.empty((2, step, size), unit.dtype)
    for start in range(0, len(scores), step):
        sides = [buffer[: len(scores) - start] for buffer in buffers]
        for rows, side in zip(trials, sides, strict=True):
            np.take(unit, rows[start : start + step], axis=0, out=side, mode="clip")  # "raise" would copy once more
        np.einsum("ij,ij->i", *sides, out=scores[start : start + step])
