"""The section `scoring` of a config."""

from dataclasses import dataclass, field
from typing import Literal

from wespeaker_lite.core.config import LARGEST_SEED, bounded
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.recipe.scorings import SCORINGS, check_scoring, parts

By = Literal["all", "balanced", "corpus"]


@dataclass(frozen=True)
class CalibrationOptions:
    """The trials for training calibrations.

    Attributes:
        list: a file of trials of the training set. Empty: random trials are drawn.
        trials: number of random trials, half of them targets.
        seed: seed of the random trials.
        prior: the prior of a target trial, for which the calibration is optimised. 0.5 is that of Cllr and of
            wespeaker.
        max_frames: limit of an utterance's length in quality measures (wespeaker: 20 s).
    """

    list: str = ""
    trials: int = bounded(30_000, 2, 10**9)
    seed: int = bounded(0, 0, LARGEST_SEED)
    prior: float = bounded(0.5, 1e-6, 1 - 1e-6)
    max_frames: int = bounded(2000, 1, 10**9)


@dataclass(frozen=True)
class PldaOptions:
    """Training of PLDA.

    Attributes:
        lda_dim: dimensions after LDA. null for the most that the number of speakers allows.
        iterations: iterations of EM.
    """

    lda_dim: int | None = bounded(None, 1, 16_384)
    iterations: int = bounded(10, 1, 100_000)


@dataclass(frozen=True)
class ScoringOptions:
    """How trials are scored.

    Attributes:
        scorings: names of scorings: a comparison, or a comparison and a calibration, such as `asnorm_qmf`.
        top_n: number of the highest cohort scores that AS-norm uses.
        mean: the mean that is subtracted from embeddings. `all`: of all training utterances. `balanced`: the mean of
            the means of a pool's corpora. `corpus`: of the utterance's own corpus.
        cohort: the cohort of S-norm and AS-norm. `all`: all training speakers. `balanced`: equally many of each corpus
            of a pool, drawn with a fixed seed. `corpus`: those of the utterance's own corpus.
        block_mb: working memory in megabytes.
        calibration: the trials for training calibrations.
        plda: training of PLDA.
    """

    scorings: tuple[str, ...] = ("cosine", "snorm", "asnorm")
    top_n: int = bounded(300, 2, 10**9)
    mean: By = "all"
    cohort: By = "all"
    block_mb: float = bounded(64, 0.001, 10**7)
    calibration: CalibrationOptions = field(default_factory=CalibrationOptions)
    plda: PldaOptions = field(default_factory=PldaOptions)

    def __post_init__(self) -> None:
        for scoring in self.scorings:
            check_scoring(scoring)
        if not self.scorings:
            raise InputError(f"scoring.scorings is empty; known: {', '.join(SCORINGS)}")
        if len(set(self.scorings)) < len(self.scorings):
            raise InputError(f"scoring.scorings: one appears twice in {' '.join(self.scorings)}")

    def first(self, *words: str) -> str:
        """The first scoring that has one of these in its name, or an empty string."""
        return next((scoring for scoring in self.scorings if not set(words).isdisjoint(parts(scoring))), "")
