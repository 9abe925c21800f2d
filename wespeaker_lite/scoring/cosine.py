"""Cosine scores of trials, in blocks."""

import numpy as np

# Rows are gathered and multiplied while they lie in the second-level cache: with larger blocks every row goes to memory
# and back, which took three times as long (measured: 115 ns a trial at 0.5 to 1 MB, 440 ns at 50 MB; 192 dimensions).
GATHER_BYTES = 2**20

# One trial of the gathering way costs as much as about this many scores of a full matrix product, which reads nothing
# at random (measured on one thread: the two ways are even at 10 to 15).
PRODUCT_SCORES_PER_TRIAL = 12

# Trials taken at a time: a list grouped by enrolment may be dense in parts only, and the row numbers of a span stay
# below some 12 MB.
SPAN = 2**18

# Row numbers of the enrolments and of the tests of trials, (n,) each.
Rows = tuple[np.ndarray, np.ndarray]


def cosine_scores(unit: np.ndarray, enroll: np.ndarray, test: np.ndarray, block_mb: float = 64) -> np.ndarray:
    """Score trials: the product of two rows each of `unit` (N, D), float32 and of length 1.

    `enroll` and `test` (n,) are row numbers. Gives (n,) float32. Vectors and products in work stay below `block_mb`
    megabytes; the row numbers of a span of trials come on top.
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
    """The distinct row numbers in rising order; in linear time, where np.unique would sort."""
    seen = np.zeros(total, dtype=bool)
    seen[rows] = True
    return np.flatnonzero(seen)


def _places(distinct: np.ndarray, total: int) -> np.ndarray:
    """For each row number its place among the distinct ones."""
    places = np.empty(total, np.int64)
    places[distinct] = np.arange(len(distinct))
    return places


def _score_by_gathering(unit: np.ndarray, trials: Rows, scores: np.ndarray, block: int) -> None:
    """The two rows of each trial side by side, some trials at a time."""
    size = unit.shape[1]
    step = max(1, min(block, GATHER_BYTES) // (2 * unit.itemsize * size))
    buffers = np.empty((2, step, size), unit.dtype)
    for start in range(0, len(scores), step):
        sides = [buffer[: len(scores) - start] for buffer in buffers]
        for rows, side in zip(trials, sides, strict=True):
            np.take(unit, rows[start : start + step], axis=0, out=side, mode="clip")  # "raise" would copy once more
        np.einsum("ij,ij->i", *sides, out=scores[start : start + step])
