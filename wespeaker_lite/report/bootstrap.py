"""Confidence intervals of error rates by resampling speakers, not trials.

Scores of trials that share a speaker are correlated, so resampling trials would give intervals that are too narrow. A
replicate draws as many speakers as there are, with replacement, and keeps the trials among them. A speaker drawn m
times counts as m people with the same voice:

- a target trial belongs to one of them: it counts m times;
- a nontarget trial of speakers a and b is a trial of each pair of their copies: it counts m_a * m_b times;
- trials between two copies of one speaker would be nontarget trials with scores of targets: they are left out.

An interval covers the choice of *test speakers*. If a system has several seeds of training, its value in a replicate is
the mean over seeds. `compare` can resample the seeds too (`draw_seeds`). All systems use the same draws, because
replicates that are hard for one system are hard for the others.

In simulations with an offset for each speaker, intervals of 95 % contained the true value in 92 % of cases with 30
speakers, and in 95 % with 75. With resampled trials, it was 65 %.

A difference of two systems is tested by its replicates: the share on the other side of 0, twice. `holm` corrects for
several such tests in one table.

Sources: the bootstrap of two-sample statistics, Efron and Tibshirani 1993, chapter 8; percentile intervals, chapter 13;
drawing users rather than scores: Poh and Bengio 2007, "Estimating the confidence interval of expected performance curve
in biometric authentication using joint bootstrap". The weights of trials are a reconstruction. Holm 1979, "A simple
sequentially rejective multiple test procedure".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.kaldi.trials import Trials, check_labels
from wespeaker_lite.scoring.metrics import measure

MIN_SPEAKERS = 10
BLOCK_ELEMENTS = 2**18  # trials x replicates per block, so that its arrays fit into the cache


class TooFewSpeakersError(InputError):
    """The trials are valid, but there are too few speakers for intervals."""


@dataclass(frozen=True)
class Resamples:
    """Draws of the speakers of a trial list.

    `times` (R, S) int32 has how often each speaker was drawn in each replicate. If several lists were drawn together,
    the sums of its rows differ. `enroll` and `test` (n,) are the speakers of trials, as columns of `times`.
    """

    times: np.ndarray
    enroll: np.ndarray
    test: np.ndarray


def resample_speakers(trials: Trials, utt2spk: Mapping[str, str], replicates: int = 1000, seed: int = 0) -> Resamples:
    """Draw the speakers of a trial list `replicates` times. The same seed and trials give the same draws.

    Raises:
        InputError: naming an utterance without speaker, or a trial whose label the speakers contradict.
        TooFewSpeakersError: for fewer than ten speakers, or so few with target trials that a replicate has none.
    """
    return resample_together({"": trials}, utt2spk, replicates, seed)[""]


def resample_together(
    lists: Mapping[str, Trials], utt2spk: Mapping[str, str], replicates: int = 1000, seed: int = 0
) -> dict[str, Resamples]:
    """Draw the speakers of several lists together, for values over lists, such as their mean.

    A replicate draws as many speakers as all lists have together. A speaker in two lists is drawn equally often in
    both.

    Raises:
        InputError, TooFewSpeakersError: as `resample_speakers`, for any of the lists.
    """
    sides = {name: _speakers(trials, utt2spk) for name, trials in lists.items()}
    everyone = np.unique(np.concatenate([both.ravel() for both in sides.values()]))
    count = len(everyone)
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=replicates)
    resamples = {}
    for name, both in sides.items():
        speakers, rows = np.unique(both, return_inverse=True)
        enroll, test = rows.reshape(2, -1)
        own = times[:, np.searchsorted(everyone, speakers)]
        resamples[name] = Resamples(own.astype(np.int32), enroll, test)
        _check_classes(resamples[name], lists[name].labels)
    return resamples


def _speakers(trials: Trials, utt2spk: Mapping[str, str]) -> np.ndarray:
    """The speakers of both sides of trials, (2, n), which labels must agree with."""
    check_labels(trials, utt2spk)
    both = np.array([[utt2spk[utterance] for utterance in side] for side in (trials.enroll, trials.test)])
    count = len(np.unique(both))
    if count < MIN_SPEAKERS:
        raise TooFewSpeakersError(f"trials of {count} speakers are too few for intervals, which need {MIN_SPEAKERS}")
    return both


def _check_classes(resamples: Resamples, labels: np.ndarray) -> None:
    """Check that all replicates have target and nontarget trials: without them, there is no error rate."""
    drawn = resamples.times > 0
    targets = drawn[:, np.unique(resamples.enroll[labels])].any(axis=1)
    nontargets = np.zeros_like(targets)
    for first, second in np.unique(np.stack([resamples.enroll, resamples.test])[:, ~labels], axis=1).T:
        nontargets |= drawn[:, first] & drawn[:, second]
    lacking = np.count_nonzero(~(targets & nontargets))
    if lacking:
        raise TooFewSpeakersError(f"too few speakers: {lacking} replicates have no target or no nontarget trial")


def replicate_metrics(scores: np.ndarray, labels: np.ndarray, resamples: Resamples) -> dict[str, np.ndarray]:
    """Compute the metrics of scores (n,) in every replicate: `eer`, `mindcf_p0.01`, `mindcf_p0.05`, (R,) each."""
    order = np.argsort(scores, kind="stable")
    last_of_ties = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    enroll, test, labels = resamples.enroll[order], resamples.test[order], labels[order]
    step = max(1, BLOCK_ELEMENTS // len(scores))
    blocks = []
    for start in range(0, len(resamples.times), step):
        times = resamples.times[start : start + step]
        weights = times.take(enroll, axis=1)
        miss = _share_below(weights * labels, last_of_ties)
        weights *= times.take(test, axis=1)
        false_alarm = 1 - _share_below(weights * ~labels, last_of_ties)
        blocks.append(measure(miss, false_alarm))
    return {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}


def _share_below(weights: np.ndarray, last_of_ties: np.ndarray) -> np.ndarray:
    """The share of weight (R, n) up to each unique score, from 0 to 1, (R, K + 1)."""
    sums = np.cumsum(weights, axis=1, dtype=np.int32).take(last_of_ties, axis=1)  # exact: they add to about n
    return np.concatenate([np.zeros((len(sums), 1)), sums / sums[:, -1:]], axis=1)


def interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The percentile interval that contains the share `level` of the replicates (R,)."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def p_value(differences: np.ndarray) -> float:
    """The two-sided p-value of a difference, from its replicates (R,). It is at least 2 / (R + 1)."""
    tail = min(np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
    return min(1.0, 2 * (tail + 1) / (len(differences) + 1))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Correct p-values (N,) for N tests: the chance that any of the true hypotheses is rejected stays below the level.

    The smallest is multiplied by N, the next by N - 1, and so on; none falls below one before it.
    """
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values)
    corrected = np.empty_like(values)
    corrected[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1)
    return corrected
