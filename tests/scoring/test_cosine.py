"""Cosine scores against the plain loop over trials in double precision."""

import tracemalloc

import numpy as np
import pytest

from wespeaker_lite.scoring import cosine
from wespeaker_lite.scoring.cosine import cosine_scores


def unit_rows(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    vectors = rng.standard_normal((count, size)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def plain_loop(unit: np.ndarray, enroll: np.ndarray, test: np.ndarray) -> list[float]:
    scores = []
    for first, second in zip(enroll, test, strict=True):
        x, y = unit[first].astype(np.float64), unit[second].astype(np.float64)
        scores.append(float(np.dot(x, y) / (np.linalg.norm(x) * np.linalg.norm(y))))
    return scores


@pytest.mark.parametrize("block_mb", [0.001, 0.05, 64])
@pytest.mark.parametrize("per_trial", [0, 10**9], ids=["gathered", "product"])
@pytest.mark.parametrize("span", [97, 2**20])
def test_scores_equal_the_plain_loop(
    monkeypatch: pytest.MonkeyPatch, block_mb: float, per_trial: int, span: int
) -> None:
    monkeypatch.setattr(cosine, "PRODUCT_SCORES_PER_TRIAL", per_trial)
    monkeypatch.setattr(cosine, "SPAN", span)
    rng = np.random.default_rng(
        [per_trial, span, int(1000 * block_mb)]
    )  # no two runs alike, so that none finds old scores
    unit = unit_rows(rng, 60, 37)
    enroll, test = rng.integers(0, 60, (2, 1001))
    scores = cosine_scores(unit, enroll, test, block_mb)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, plain_loop(unit, enroll, test), rtol=0, atol=1e-6)


def test_both_algorithms_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    gathered: list[int] = []
    plain = cosine._score_by_gathering

    def counting(unit: np.ndarray, trials: tuple[np.ndarray, np.ndarray], scores: np.ndarray, block: int) -> None:
        gathered.append(len(scores))
        plain(unit, trials, scores, block)

    monkeypatch.setattr(cosine, "_score_by_gathering", counting)
    unit = unit_rows(np.random.default_rng(2), 100, 16)
    every = np.divmod(np.arange(100 * 100), 100)
    cosine_scores(unit, *every)
    assert gathered == []
    cosine_scores(unit, np.arange(100), np.arange(100)[::-1])
    assert gathered == [100]


@pytest.mark.parametrize("dense", [True, False])
def test_working_memory_is_bounded(dense: bool) -> None:
    rng = np.random.default_rng(3)
    unit = unit_rows(rng, 3000, 64)
    if dense:
        enroll, test = np.divmod(rng.permutation(400 * 400), 400)  # one product of 0.6 MB
    else:
        enroll, test = rng.integers(0, 3000, (2, 30_000))  # gathered whole: 15 MB
    tracemalloc.start()
    cosine_scores(unit, enroll, test, block_mb=0.25)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    row_numbers = 3 * 8 * len(unit)
    assert peak < 4 * len(enroll) + 0.25 * 2**20 + row_numbers


def test_no_trials_give_no_scores() -> None:
    nothing = np.empty(0, np.int64)
    assert cosine_scores(np.eye(3, dtype=np.float32), nothing, nothing).shape == (0,)
