"""The scoring back-end: it trains PLDA and calibrations on the training set, and scores trials."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wespeaker_lite.core.config import from_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.extraction.embeddings import Cohort, Embeddings
from wespeaker_lite.kaldi.trials import Trials, check_known
from wespeaker_lite.recipe import resolved
from wespeaker_lite.recipe.scoring_config import ScoringOptions
from wespeaker_lite.recipe.scorings import is_calibrated, parts
from wespeaker_lite.scoring.by_corpus import (
    cohort_groups,
    grouped_statistics,
    means_by_corpus,
    with_balanced_mean,
)
from wespeaker_lite.scoring.calibration import (
    QUALITY_INPUTS,
    Calibration,
    pair_quality,
    train_calibration,
)
from wespeaker_lite.scoring.cosine import Rows, cosine_scores
from wespeaker_lite.scoring.metrics import check_scores
from wespeaker_lite.scoring.normalisation import CohortStatistics, normalise_scores
from wespeaker_lite.scoring.plda import Plda, PldaVectors, train_plda
from wespeaker_lite.scoring.scores import DECIMALS

log = logging.getLogger(__name__)


def read_options(config: str | Path | None, **given: Any) -> ScoringOptions:
    """Read the section `scoring` of a resolved config, or the defaults. Values in `given` replace it, except None.

    Keys that an older config lacks have their defaults.

    Raises:
        InputError: for an unknown key or a bad value.
    """
    section = resolved.read(config).get("scoring", {}) if config else {}
    section = {**section, **{key: value for key, value in given.items() if value is not None}}
    return from_mapping(ScoringOptions, section, f"{config}: scoring" if config else "scoring")


@dataclass(frozen=True)
class Training:
    """Training data of PLDA and calibrations: embeddings of the training set, its speakers, and trials of it.

    Calibration only needs the embeddings of utterances in the trials.
    """

    embeddings: Embeddings
    utt2spk: Mapping[str, str]
    trials: Trials | None = None


@dataclass(frozen=True)
class Prepared:
    """Utterances prepared for scoring. Parts that no scoring needs are empty or None."""

    unit: Embeddings
    statistics: Mapping[str, CohortStatistics]
    quality: np.ndarray | None
    plda: PldaVectors | None
    block_mb: float

    def rows(self, trials: Trials) -> Rows:
        """Row numbers of both sides of trials."""
        return self.unit.rows(trials.enroll), self.unit.rows(trials.test)

    def scores(self, rows: Rows, comparison: str) -> np.ndarray:
        """Compute scores (n,) float64, rounded as in score files."""
        if comparison == "plda":
            scores = self.plda.scores(*rows, self.block_mb)
        else:
            scores = cosine_scores(self.unit.vectors, *rows, self.block_mb)
            if comparison != "cosine":
                scores = normalise_scores(scores, *rows, self.statistics[comparison])
        return np.round(scores.astype(np.float64), DECIMALS)

    def inputs(self, rows: Rows, scoring: str) -> np.ndarray:
        """The inputs of a calibration, (n, 1 or 7): the score, and with QMF the quality measures of both sides."""
        comparison, kind = parts(scoring)
        columns = [self.scores(rows, comparison)]
        if kind == "qmf":
            columns.append(pair_quality(self.quality, *rows))
        return np.column_stack(columns)


class Backend:
    """Scores trials with all scorings of the options, and trains PLDA and calibrations for them.

    Raises:
        InputError: if a scoring needs a cohort, a training set or trials that are not given, or cannot be trained.
    """

    def __init__(self, options: ScoringOptions, cohort: Cohort | None, training: Training | None) -> None:
        self.options, self.cohort, self.training = options, cohort, training
        self._check()
        if cohort is not None and options.mean != "all":
            self.cohort = with_balanced_mean(cohort)
        self.plda = self._train_plda() if options.first("plda") else None
        self.calibrations: dict[str, Calibration] = {}

    def _check(self) -> None:
        normed = self.options.first("snorm", "asnorm", "qmf")
        if normed and self.cohort is None:
            raise InputError(f"{normed} needs a cohort: name one with --cohort, or use --scorings cosine")
        trained = self.options.first("plda", "linear", "qmf")
        if trained and (self.training is None or self.cohort is None):
            raise InputError(
                f"{trained} is trained on the cohort's utterances: name them and their speakers with --cohort and "
                "--cohort-utt2spk, or remove it from --scorings"
            )

    def _train_plda(self) -> Plda:
        embeddings = self.training.embeddings
        speakers = _speakers(embeddings.index, self.training.utt2spk)
        number_of = {speaker: number for number, speaker in enumerate(dict.fromkeys(speakers))}
        numbers = np.fromiter(map(number_of.__getitem__, speakers), np.int64, len(speakers))
        return train_plda(embeddings.vectors, numbers, self.cohort.mean, self.options.plda)

    def prepare(self, embeddings: Embeddings, own: np.ndarray | None = None) -> Prepared:
        """Prepare embeddings. `own` (N,): the cohort's rows of their own speakers, if these are in the cohort.

        Raises:
            InputError: if a scoring with QMF needs the lengths of utterances, and they are unknown.
        """
        unit = embeddings.unit(self._mean(embeddings))
        statistics = self._statistics(unit, own)
        quality = None
        if scoring := self.options.first("qmf"):
            if embeddings.frames is None:
                raise InputError(
                    f"{scoring} uses durations: name them with --frames and --cohort-frames (utt2num_frames)"
                )
            frames = np.minimum(embeddings.frames, self.options.calibration.max_frames)
            magnitudes = np.linalg.norm(embeddings.vectors, axis=1)
            quality = np.column_stack([np.log(frames), magnitudes, statistics["asnorm"].mean])
        plda = self.plda.prepare(embeddings.vectors) if self.plda else None
        return Prepared(unit, statistics, quality, plda, self.options.block_mb)

    def _statistics(self, unit: Embeddings, own: np.ndarray | None) -> dict[str, CohortStatistics]:
        sizes = {}
        if self.options.first("snorm"):
            sizes["snorm"] = None
        if self.options.first("asnorm", "qmf"):
            sizes["asnorm"] = self.options.top_n
        if not sizes:
            return {}
        impostors = self.cohort.embeddings.unit(self._mean(self.cohort.embeddings)).vectors
        groups = cohort_groups(list(unit.index), self.cohort, self.options.cohort)
        return {
            name: grouped_statistics(unit.vectors, impostors, groups, size, self.options.block_mb, own)
            for name, size in sizes.items()
        }

    def _mean(self, embeddings: Embeddings) -> np.ndarray | None:
        """The mean to subtract from embeddings: one for all, (D,), or one for each, (N, D)."""
        if self.cohort is None:
            return None
        if self.options.mean == "corpus":
            return means_by_corpus(list(embeddings.index), self.cohort)
        return self.cohort.mean

    def calibrate(self) -> Iterator[tuple[str, np.ndarray]]:
        """Train the calibrations of the options. Yield the scores of their training trials for every scoring.

        Raises:
            InputError: if the trials have unknown utterances or lack a class, or the speaker of an utterance is not in
                the cohort.
        """
        trials, training = self.training.trials, self.training
        check_known(trials, training.embeddings.index)
        embeddings = select_used(training.embeddings, [trials])
        index = self.cohort.embeddings.index
        speakers = _speakers(embeddings.index, training.utt2spk)
        if missing := next((speaker for speaker in speakers if speaker not in index), None):
            raise InputError(f"the cohort has no speaker {missing!r}, but the trials of calibration have")
        prepared = self.prepare(embeddings, np.array([index[speaker] for speaker in speakers]))
        rows = prepared.rows(trials)
        for scoring in filter(is_calibrated, self.options.scorings):
            inputs = prepared.inputs(rows, scoring)
            check_scores(inputs[:, 0], trials, f"calibration {scoring}")
            self.calibrations[scoring] = train_calibration(inputs, trials.labels, self.options.calibration.prior)
            _log_calibration(scoring, self.calibrations[scoring], inputs[:, 0], trials.labels)
        yield from self.all_scores(prepared, trials)

    def all_scores(self, prepared: Prepared, trials: Trials) -> Iterator[tuple[str, np.ndarray]]:
        """Yield the name of each scoring and its scores (n,) float64, rounded as in score files."""
        rows = prepared.rows(trials)
        for scoring in self.options.scorings:
            if is_calibrated(scoring):
                ratios = self.calibrations[scoring].apply(prepared.inputs(rows, scoring))
                yield scoring, np.round(ratios, DECIMALS)
            else:
                yield scoring, prepared.scores(rows, scoring)


def select_used(embeddings: Embeddings, lists: Iterable[Trials]) -> Embeddings:
    """Select the embeddings of utterances in the trials."""
    return embeddings.select(list(dict.fromkeys(name for trials in lists for name in (*trials.enroll, *trials.test))))


def _speakers(utterances: Iterable[str], utt2spk: Mapping[str, str]) -> list[str]:
    try:
        return [utt2spk[utterance] for utterance in utterances]
    except KeyError as error:
        raise InputError(f"no speaker for utterance {error.args[0]!r} of the training set") from None


def _log_calibration(scoring: str, calibration: Calibration, scores: np.ndarray, labels: np.ndarray) -> None:
    names = ("score", *QUALITY_INPUTS)
    terms = [f"{weight:.4g} {name}" for name, weight in zip(names, calibration.weights, strict=False)]
    model = " + ".join([*terms, f"{calibration.bias:.4g}"])
    log.info("%s: from %d trials, %d of them targets: %s", scoring, len(labels), np.count_nonzero(labels), model)
    if scores[labels].min() > scores[~labels].max():
        log.warning("%s: the score separates all calibration trials: the ratios will be far too confident", scoring)
