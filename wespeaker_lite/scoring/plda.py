"""LDA, length normalisation and two-covariance PLDA, trained on embeddings with speaker labels.

The steps are those of Kaldi's x-vector recipes: mean subtraction, LDA, length normalisation, and the model
x = mean + y + e with y ~ N(0, B) for the speaker and e ~ N(0, W) for the utterance. B and W are estimated by EM with
the statistics of Kaldi's ivector-compute-plda. There are two differences: EM starts from moments instead of unit
matrices, and vectors are not normalised again in scoring.

Sources: Brummer and de Villiers 2010, "The speaker partitioning problem" (Odyssey), for the model; Garcia-Romero and
Espy-Wilson 2011, "Analysis of i-vector length normalization in speaker recognition systems" (Interspeech).
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh
from scipy.sparse import csr_array

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.recipe.scoring_config import PldaOptions
from wespeaker_lite.scoring.cosine import cosine_scores

log = logging.getLogger(__name__)

BLOCK_ROWS = 2**14
COVARIANCE_FLOOR = 1e-6  # of the largest eigenvalue; Kaldi's default for LDA


@dataclass(frozen=True)
class SpeakerStatistics:
    """Statistics of S speakers: numbers of utterances (S,), means (S, D), and the scatter within speakers (D, D)."""

    counts: np.ndarray
    means: np.ndarray
    within: np.ndarray


@dataclass(frozen=True)
class TwoCovariance:
    """A two-covariance model. For (x - `mean`) @ `transform`, W is the unit matrix and B = diag(`between`)."""

    mean: np.ndarray
    transform: np.ndarray
    between: np.ndarray


@dataclass(frozen=True)
class PldaVectors:
    """The log-likelihood ratio of rows i and j is `vectors[i] @ vectors[j] + offsets[i] + offsets[j]`."""

    vectors: np.ndarray
    offsets: np.ndarray

    def scores(self, enroll: np.ndarray, test: np.ndarray, block_mb: float = 64) -> np.ndarray:
        """Log-likelihood ratios (n,) float64 of trials given by rows `enroll` and `test` (n,)."""
        return cosine_scores(self.vectors, enroll, test, block_mb) + self.offsets[enroll] + self.offsets[test]


@dataclass(frozen=True)
class Plda:
    """All steps: `mean` (D,), `lda` (D, d), and the model of the projected vectors."""

    mean: np.ndarray
    lda: np.ndarray
    model: TwoCovariance

    def prepare(self, vectors: np.ndarray) -> PldaVectors:
        """Convert embeddings (N, D) for scoring, in blocks."""
        parts = []
        for start in range(0, len(vectors), BLOCK_ROWS):
            projected = _project(vectors[start : start + BLOCK_ROWS], self.mean, self.lda)
            parts.append(ratio_vectors(self.model, projected))
        return PldaVectors(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in ("vectors", "offsets"))
        )


def train_plda(vectors: np.ndarray, speakers: np.ndarray, mean: np.ndarray, options: PldaOptions) -> Plda:
    """Train on embeddings (N, D) after subtraction of `mean` (D,). `speakers` (N,) are numbered from 0.

    Raises:
        InputError: if there are too few speakers or utterances for the dimensions, or the embeddings are degenerate.
    """
    count, size = int(speakers.max()) + 1, vectors.shape[1]
    dim = lda_dim(len(vectors), count, size, options)
    log.info("PLDA of %d dimensions (of %d) from %d utterances of %d speakers", dim, size, len(vectors), count)
    lda = _discriminants(speaker_statistics(vectors, speakers, lambda block: block - mean))[:, :dim]
    statistics = speaker_statistics(vectors, speakers, lambda block: _project(block, mean, lda))
    return Plda(mean, lda, train_two_covariance(statistics, options.iterations))


def lda_dim(utterances: int, speakers: int, size: int, options: PldaOptions) -> int:
    """The dimensions that LDA keeps, of so many training utterances and speakers and embeddings of a size.

    Raises:
        InputError: where there are too few speakers or utterances.
    """
    most = min(size, speakers - 1)
    dim = most if options.lda_dim is None else options.lda_dim
    if not 1 <= dim <= most:
        raise InputError(
            f"plda: LDA to {dim} of {size} dimensions needs more than {dim} training speakers, and there are "
            f"{speakers}: set scoring.plda.lda_dim lower"
        )
    if utterances - speakers < size:
        raise InputError(
            f"plda: {utterances} training utterances of {speakers} speakers are too few for embeddings of {size} "
            f"dimensions: there must be at least {size} more utterances than speakers; "
            "or remove plda from scoring.scorings"
        )
    return dim


def _project(vectors: np.ndarray, mean: np.ndarray, lda: np.ndarray) -> np.ndarray:
    """Apply LDA, and scale to the expected norm of vectors with unit variance, the root of their size."""
    projected = (vectors - mean) @ lda.astype(vectors.dtype)
    return projected * (np.sqrt(lda.shape[1]) / np.linalg.norm(projected, axis=1, keepdims=True)).astype(vectors.dtype)


def speaker_statistics(
    vectors: np.ndarray, speakers: np.ndarray, transform: Callable[[np.ndarray], np.ndarray]
) -> SpeakerStatistics:
    """Compute the statistics of vectors (N, D), in blocks, to which `transform` is applied."""
    counts = np.bincount(speakers)
    sums, squares = 0.0, 0.0
    for start in range(0, len(vectors), BLOCK_ROWS):
        rows, block = speakers[start : start + BLOCK_ROWS], transform(vectors[start : start + BLOCK_ROWS])
        members = csr_array((np.ones(len(rows)), (rows, np.arange(len(rows)))), shape=(len(counts), len(rows)))
        sums = sums + members @ block
        squares = squares + (block.T @ block).astype(np.float64)
    means = sums / counts[:, None]
    return SpeakerStatistics(counts, means, squares - (means.T * counts) @ means)


def _discriminants(statistics: SpeakerStatistics) -> np.ndarray:
    """The LDA directions (D, D), the best first, scaled so that the scatter within speakers is the unit matrix."""
    centred = statistics.means - np.average(statistics.means, axis=0, weights=statistics.counts)
    return _diagonalise((centred.T * statistics.counts) @ centred, statistics.within)[1]


def _diagonalise(between: np.ndarray, within: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find V with V' within V = 1 and V' between V diagonal. Returns that diagonal, in descending order, and V.

    Small eigenvalues of `within` are floored, as with Kaldi's --covariance-floor, because the last layer of a network
    may not use all dimensions.
    """
    values, vectors = eigh(within)
    if not values.sum() > 1e-6 * np.trace(between):
        raise InputError("plda: all training embeddings of a speaker are equal; look at the model")
    white = vectors / np.sqrt(np.maximum(values, COVARIANCE_FLOOR * values[-1]))
    diagonal, rotation = eigh(white.T @ between @ white)
    return diagonal[::-1], white @ rotation[:, ::-1]


def train_two_covariance(statistics: SpeakerStatistics, iterations: int) -> TwoCovariance:
    """Estimate B and W by EM, starting from the moments. The mean is that of the speakers' means, as in Kaldi.

    All values are in the basis in which W is the unit matrix and B is diagonal, so that the posteriors of speakers have
    diagonal covariances.
    """
    counts, speakers = statistics.counts[:, None], len(statistics.counts)
    mean = statistics.means.mean(axis=0)
    means, scatter = statistics.means - mean, statistics.within
    transform = np.eye(means.shape[1])
    between, within = means.T @ means / speakers, scatter / (counts.sum() - speakers)
    for iteration in range(iterations + 1):
        diagonal, basis = _diagonalise(between, within)
        transform, means, scatter = transform @ basis, means @ basis, basis.T @ scatter @ basis
        if iteration == iterations:
            break
        variance = diagonal / (1 + counts * diagonal)  # of the posterior of y, by speaker and dimension
        expected = counts * variance * means
        rest = means - expected
        between = (expected.T @ expected + np.diag(variance.sum(axis=0))) / speakers
        within = (scatter + (rest * counts).T @ rest + np.diag((counts * variance).sum(axis=0))) / counts.sum()
    return TwoCovariance(mean, transform, np.maximum(diagonal, 0))


def ratio_vectors(model: TwoCovariance, vectors: np.ndarray) -> PldaVectors:
    """Express the log-likelihood ratio of one speaker against two as dot products, from vectors (N, D).

    In the model's basis, both hypotheses are Gaussians of pairs (a, b), one for each dimension, with variances 1 + psi
    and covariance psi or 0. The difference of their logarithms is psi / (1 + 2 psi) a b
    - psi^2 / (2 (1 + psi) (1 + 2 psi)) (a^2 + b^2) + log(1 + psi) - log(1 + 2 psi) / 2.
    """
    psi = model.between
    rotated = (vectors - model.mean) @ model.transform
    constant = np.sum(np.log1p(psi) - np.log1p(2 * psi) / 2)
    offsets = constant / 2 - rotated**2 @ (psi**2 / (2 * (1 + psi) * (1 + 2 * psi)))
    return PldaVectors((rotated * np.sqrt(psi / (1 + 2 * psi))).astype(np.float32), offsets)
