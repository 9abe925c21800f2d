"""S-norm and AS-norm against loops over trials in double precision."""

import logging
import tracemalloc

import numpy as np
import pytest

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.scoring.normalisation import cohort_statistics, normalise_scores


def unit_rows(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    vectors = rng.standard_normal((count, size)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def plain_normalised(unit: np.ndarray, cohort: np.ndarray, enroll: int, test: int, top_n: int) -> float:
    x, y, others = (array.astype(np.float64) for array in (unit[enroll], unit[test], cohort))
    raw = float(x @ y)
    sides = []
    for side in (x, y):
        nearest = sorted((float(side @ other) for other in others), reverse=True)[:top_n]
        sides.append((raw - np.mean(nearest)) / np.std(nearest))
    return sum(sides) / 2


@pytest.mark.parametrize("top_n", [None, 5, 20, 50])
@pytest.mark.parametrize("block_mb", [0.0001, 0.003, 64])
def test_scores_equal_the_plain_loop(top_n: int | None, block_mb: float) -> None:
    rng = np.random.default_rng(4)
    unit, cohort = unit_rows(rng, 40, 24), unit_rows(rng, 50, 24)
    enroll, test = rng.integers(0, 40, (2, 300))
    scores = np.einsum("ij,ij->i", unit[enroll], unit[test])
    normalised = normalise_scores(scores, enroll, test, cohort_statistics(unit, cohort, top_n, block_mb))
    wanted = [plain_normalised(unit, cohort, *trial, top_n or 50) for trial in zip(enroll, test, strict=True)]
    np.testing.assert_allclose(normalised, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("top_n", [None, 5, 50])
def test_the_speaker_of_an_utterance_is_left_out_of_its_cohort(top_n: int | None) -> None:
    rng = np.random.default_rng(11)
    unit, cohort, own = unit_rows(rng, 40, 24), unit_rows(rng, 50, 24), rng.integers(0, 50, 40)
    found = cohort_statistics(unit, cohort, top_n, 0.003, own)
    for row, speaker in enumerate(own):
        others = np.sort(np.delete(cohort, speaker, axis=0) @ unit[row])[-(top_n or 50) :]
        assert found.mean[row] == pytest.approx(others.mean(), abs=1e-6)
        assert found.std[row] == pytest.approx(others.std(), abs=1e-5)


def test_statistics_of_a_cohort_with_a_large_mean_are_exact() -> None:
    """With a small variance around a large mean, sums in single precision would fail."""
    rng = np.random.default_rng(5)
    unit = unit_rows(rng, 3, 64)
    cohort = unit[0] + 1e-3 * rng.standard_normal((3000, 64)).astype(np.float32)
    statistics = cohort_statistics(unit, cohort)
    exact = unit.astype(np.float64) @ cohort.astype(np.float64).T
    np.testing.assert_allclose(statistics.std, exact.std(axis=1), rtol=1e-3)


def test_a_cohort_that_is_too_small_is_used_completely_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(6)
    unit, cohort = unit_rows(rng, 30, 8), unit_rows(rng, 12, 8)
    with caplog.at_level(logging.WARNING):
        adaptive = cohort_statistics(unit, cohort, 300, block_mb=0.0001)
    assert [record.getMessage() for record in caplog.records] == [
        "the cohort has only 12 of the 300 members of --top-n; all of it is used"
    ]
    np.testing.assert_allclose(adaptive.mean, cohort_statistics(unit, cohort).mean, atol=1e-7)


def test_working_memory_is_bounded() -> None:
    rng = np.random.default_rng(7)
    unit, cohort = unit_rows(rng, 2000, 16), unit_rows(rng, 1000, 16)  # all scores: 8 MB
    tracemalloc.start()
    cohort_statistics(unit, cohort, 900, block_mb=0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.75 * 2**20


def test_a_cohort_with_zero_variance_is_refused() -> None:
    unit = unit_rows(np.random.default_rng(8), 4, 8)
    with pytest.raises(InputError, match="larger cohort"):
        cohort_statistics(unit, unit[:1])
    with pytest.raises(InputError, match="at least 2"):
        cohort_statistics(unit, unit, top_n=1)
