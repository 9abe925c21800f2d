"""The section `scoring` of a config."""

from dataclasses import dataclass, field
from typing import Literal

from wespeaker_lite.core.config import LARGEST_SEED, bounded
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.recipe.scorings import SCORINGS, check_scoring, parts

By = Literal["all", "balanced", "corpus"]


@dataclass(frozen=True)
class CalibrationOptions:
    """What calibrations are trained on.

    Attributes:
        list: file of trials among the training set's utterances. Empty: trials are drawn.
        trials: number of trials that are drawn, half of them targets.
        seed: of this draw.
        prior: of a target trial, for which the calibration is best. 0.5 is that of Cllr, which wespeaker trains for.
        max_frames: longer utterances count as this long in quality measures (wespeaker: 20 s).
    """

    list: str = ""
    trials: int = bounded(30_000, 2, 10**9)
    seed: int = bounded(0, 0, LARGEST_SEED)
    prior: float = bounded(0.5, 1e-6, 1 - 1e-6)
    max_frames: int = bounded(2000, 1, 10**9)


@dataclass(frozen=True)
class PldaOptions:
    """How PLDA is trained.

    Attributes:
        lda_dim: dimensions that LDA keeps. null for as many as the number of speakers allows.
        iterations: iterations of EM.
    """

    lda_dim: int | None = bounded(None, 1, 16_384)
    iterations: int = bounded(10, 1, 100_000)


@dataclass(frozen=True)
class ScoringOptions:
    """How trials are scored.

    Attributes:
        scorings: the scorings to make: a comparison, or a comparison and a calibration, such as `asnorm_qmf`.
        top_n: size of the adaptive cohort of AS-norm: this many of the highest scores count.
        mean: what is subtracted from embeddings. `all`: the mean of all training utterances. `balanced`: the mean of
            the means of the corpora of a pool. `corpus`: the mean of the utterance's own corpus.
        cohort: whom S-norm and AS-norm compare with. `all`: all training speakers. `balanced`: as many of each corpus
            of a pool, drawn by a fixed seed. `corpus`: those of the utterance's own corpus.
        block_mb: working memory in megabytes.
        calibration: what calibrations are trained on.
        plda: how PLDA is trained.
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
            raise InputError(f"no scoring is asked for; known: {', '.join(SCORINGS)}")
        if len(set(self.scorings)) < len(self.scorings):
            raise InputError(f"scoring.scorings: one appears twice in {' '.join(self.scorings)}")

    def first(self, *words: str) -> str:
        """The first scoring that has one of these in its name, or an empty string."""
        return next((scoring for scoring in self.scorings if not set(words).isdisjoint(parts(scoring))), "")
