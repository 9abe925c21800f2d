"""PLDA against densities by scipy, and data drawn from a known model."""

import numpy as np
import pytest
from scipy.linalg import block_diag
from scipy.stats import multivariate_normal

from wespeaker_lite.core.config import from_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.recipe.scoring_config import PldaOptions
from wespeaker_lite.scoring.metrics import cllr, min_cllr
from wespeaker_lite.scoring.plda import (
    SpeakerStatistics,
    TwoCovariance,
    ratio_vectors,
    speaker_statistics,
    train_plda,
    train_two_covariance,
)

BETWEEN = np.array([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 0.5]])
WITHIN = np.array([[1.0, 0.3, 0.2], [0.3, 0.5, 0.0], [0.2, 0.0, 2.0]])
MEAN = np.array([5.0, -3.0, 1.0])


def draw(speakers: int, takes: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of a two-covariance model, takes[0] to takes[1] - 1 for each speaker, shuffled."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(np.repeat(np.arange(speakers), rng.integers(*takes, speakers)))
    voices = rng.multivariate_normal(MEAN, BETWEEN, speakers)
    return voices[rows] + rng.multivariate_normal(np.zeros(3), WITHIN, len(rows)), rows


def covariances(model: TwoCovariance) -> tuple[np.ndarray, np.ndarray]:
    """Between- and within-speaker covariance, in the space of the vectors."""
    inverse = np.linalg.inv(model.transform)
    return inverse.T @ np.diag(model.between) @ inverse, inverse.T @ inverse


def log_likelihood(statistics: SpeakerStatistics, vectors: np.ndarray, rows: np.ndarray, model: TwoCovariance) -> float:
    """The log-likelihood of all speakers; each is one Gaussian over all its utterances."""
    between, within = covariances(model)
    total = 0.0
    for speaker, count in enumerate(statistics.counts):
        covariance = np.kron(np.ones((count, count)), between) + block_diag(*[within] * count)
        total += multivariate_normal.logpdf(vectors[rows == speaker].ravel(), np.tile(model.mean, count), covariance)
    return total


def same(vectors: np.ndarray) -> np.ndarray:
    return vectors


def test_a_known_model_is_recovered() -> None:
    vectors, rows = draw(8000, (2, 12), seed=0)
    model = train_two_covariance(speaker_statistics(vectors, rows, same), 10)
    between, within = covariances(model)
    np.testing.assert_allclose(model.mean, MEAN, atol=0.08)
    np.testing.assert_allclose(between, BETWEEN, atol=0.15)
    np.testing.assert_allclose(within, WITHIN, atol=0.05)


def test_every_em_iteration_raises_the_likelihood() -> None:
    vectors, rows = draw(40, (1, 6), seed=1)
    statistics = speaker_statistics(vectors, rows, same)
    found = [
        log_likelihood(statistics, vectors, rows, train_two_covariance(statistics, rounds)) for rounds in (1, 2, 5, 30)
    ]
    assert np.diff(found).min() > 0


def test_one_em_iteration_equals_the_plain_loop() -> None:
    """The updates of Kaldi's PldaEstimator, with its matrices, from the same start."""
    vectors, rows = draw(30, (1, 8), seed=2)
    speakers = [vectors[rows == speaker] for speaker in range(30)]
    means = [each.mean(axis=0) for each in speakers]
    mean = np.mean(means, axis=0)
    scatter = sum((each - each.mean(axis=0)).T @ (each - each.mean(axis=0)) for each in speakers)
    between = sum(np.outer(each - mean, each - mean) for each in means) / 30
    within = scatter / (len(vectors) - 30)
    new_between, new_within = np.zeros((3, 3)), scatter.copy()
    for each, centre in zip(speakers, means, strict=True):
        count = len(each)
        spread = np.linalg.inv(np.linalg.inv(between) + count * np.linalg.inv(within))
        expected = spread @ (count * np.linalg.inv(within)) @ (centre - mean)
        rest = centre - mean - expected
        new_between += spread + np.outer(expected, expected)
        new_within += count * (spread + np.outer(rest, rest))
    found = covariances(train_two_covariance(speaker_statistics(vectors, rows, same), 1))
    np.testing.assert_allclose(found[0], new_between / 30, atol=1e-9)
    np.testing.assert_allclose(found[1], new_within / len(vectors), atol=1e-9)


def test_the_ratio_is_that_of_the_two_densities() -> None:
    vectors, rows = draw(50, (2, 6), seed=3)
    model = train_two_covariance(speaker_statistics(vectors, rows, same), 5)
    between, within = covariances(model)
    ready = ratio_vectors(model, vectors)
    enroll, test = np.random.default_rng(4).integers(0, len(vectors), (2, 200))
    one = np.block([[between + within, between], [between, between + within]])
    pairs = np.hstack([vectors[enroll], vectors[test]])
    wanted = multivariate_normal.logpdf(pairs, np.tile(model.mean, 2), one) - sum(
        multivariate_normal.logpdf(side, model.mean, between + within) for side in (vectors[enroll], vectors[test])
    )
    np.testing.assert_allclose(ready.scores(enroll, test), wanted, atol=1e-5)
    np.testing.assert_allclose(ready.scores(enroll, test), ready.scores(test, enroll), rtol=1e-12)


def test_statistics_in_blocks_equal_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wespeaker_lite.scoring.plda.BLOCK_ROWS", 7)
    vectors, rows = draw(9, (1, 6), seed=5)
    statistics = speaker_statistics(vectors, rows, lambda block: block - 1)
    speakers = [vectors[rows == speaker] - 1 for speaker in range(9)]
    np.testing.assert_allclose(statistics.means, [each.mean(axis=0) for each in speakers])
    np.testing.assert_array_equal(statistics.counts, [len(each) for each in speakers])
    scatter = sum(np.cov(each.T, bias=True) * len(each) for each in speakers if len(each) > 1)
    np.testing.assert_allclose(statistics.within, scatter, atol=1e-9)


def embeddings(speakers: int, takes: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings with different variances per dimension; in ten dimensions speakers do not differ."""
    rng = np.random.default_rng(seed)
    rows = np.repeat(np.arange(speakers), takes)
    voices = rng.standard_normal((speakers, size)) * np.r_[np.ones(size - 10), np.zeros(10)]
    noise = rng.standard_normal((len(rows), size)) * np.r_[np.ones(size - 10), np.full(10, 5.0)]
    return (voices[rows] + noise + 2).astype(np.float32), rows


def pairs_of(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    enroll, test = np.triu_indices(len(rows), 1)
    return enroll, test, rows[enroll] == rows[test]


def test_plda_distinguishes_new_speakers_better_than_cosine() -> None:
    vectors, rows = embeddings(150, 8, 30, seed=6)
    new, new_rows = embeddings(20, 4, 30, seed=7)
    enroll, test, labels = pairs_of(new_rows)
    plda = train_plda(vectors, rows, vectors.mean(axis=0), PldaOptions(lda_dim=20))
    scores = plda.prepare(new).scores(enroll, test)
    centred = new - vectors.mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    assert min_cllr(scores, labels) < min_cllr((unit @ unit.T)[enroll, test], labels) - 0.3
    assert cllr(scores, labels) < min_cllr(scores, labels) + 0.15
    assert plda.lda.shape == (30, 20)
    far = plda.prepare(vectors.mean(axis=0) + 9 * (new - vectors.mean(axis=0)))
    np.testing.assert_allclose(far.scores(enroll, test), scores, atol=1e-3)  # length does not count


def test_directions_without_variance_do_not_matter() -> None:
    vectors, rows = embeddings(150, 8, 30, seed=8)
    new, new_rows = embeddings(20, 4, 30, seed=9)
    enroll, test, _ = pairs_of(new_rows)
    scores = []
    for extra in (np.empty((1, 0), np.float32), np.full((1, 1), 3, np.float32)):
        known, unknown = (np.hstack([each, np.repeat(extra, len(each), axis=0)]) for each in (vectors, new))
        plda = train_plda(known, rows, known.mean(axis=0), PldaOptions(lda_dim=20))
        scores.append(plda.prepare(unknown).scores(enroll, test))
    np.testing.assert_allclose(*scores, atol=0.05)


def test_dimensions_are_as_many_as_speakers_allow() -> None:
    vectors, rows = embeddings(12, 8, 30, seed=10)
    assert train_plda(vectors, rows, vectors.mean(axis=0), PldaOptions()).lda.shape == (30, 11)


def test_too_little_training_data_is_an_error() -> None:
    vectors, rows = embeddings(12, 8, 30, seed=11)
    mean = vectors.mean(axis=0)
    with pytest.raises(InputError, match="LDA to 12 of 30 dimensions needs more than 12 training speakers"):
        train_plda(vectors, rows, mean, PldaOptions(lda_dim=12))
    with pytest.raises(InputError, match="12 training utterances of 12 speakers are too few"):
        train_plda(vectors[::8], np.arange(12), mean, PldaOptions())
    with pytest.raises(InputError, match="and there are 1"):
        train_plda(vectors, np.zeros(len(rows), int), mean, PldaOptions())
    with pytest.raises(InputError, match="are equal"):
        train_plda(np.repeat(vectors[::8], 8, axis=0), rows, mean, PldaOptions(lda_dim=5))
    for option in ("iterations", "lda_dim"):
        with pytest.raises(InputError, match=f"{option}: 0 does not lie in"):
            from_mapping(PldaOptions, {option: 0}, "here")
