"""Error rates of scored trials: operating points, EER, minDCF; for log-likelihood ratios also Cllr and actDCF."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.special import xlogy

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.kaldi.trials import Trials, check_classes

# Priors of a target trial for the detection cost. Both kinds of errors cost 1.
P_TARGETS = (0.01, 0.05)


@dataclass(frozen=True)
class OperatingPoints:
    """Error rates at all thresholds that differ. A trial is accepted if its score is at least the threshold.

    `thresholds` are the K unique scores in ascending order, then infinity. `miss` increases from 0 to 1, and
    `false_alarm` decreases from 1 to 0; both (K + 1,). Equal scores are accepted or rejected together.
    """

    thresholds: np.ndarray
    miss: np.ndarray
    false_alarm: np.ndarray


def check_scores(scores: np.ndarray, trials: Trials, where: str) -> None:
    """Check that metrics of scores (n,) can be computed. `where` names the list in messages.

    Raises:
        InputError: naming the first trial whose score is not finite, or the class of trials that is missing.
    """
    bad = np.flatnonzero(~np.isfinite(scores))
    if bad.size:
        first = bad[0]
        raise InputError(
            f"{where}: the score of trial {trials.enroll[first]} {trials.test[first]} is {scores[first]}, "
            f"and {bad.size - 1} more are not finite"
        )
    check_classes(trials, where)


def operating_points(scores: np.ndarray, labels: np.ndarray) -> OperatingPoints:
    """Compute the error rates of scores (n,) with labels (n,), True for target trials. Both kinds are needed."""
    order = np.argsort(scores)
    scores, labels = scores[order], labels[order]
    last_of_ties = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    targets = np.concatenate(([0], np.cumsum(labels)[last_of_ties]))
    nontargets = np.concatenate(([0], last_of_ties + 1)) - targets
    thresholds = np.append(scores[last_of_ties], np.inf)
    return OperatingPoints(thresholds, targets / targets[-1], 1 - nontargets / nontargets[-1])


def equal_error_rate(miss: np.ndarray, false_alarm: np.ndarray) -> np.ndarray:
    """Interpolate linearly between the two operating points around miss = false alarm.

    Arrays are (K + 1,), or (R, K + 1) for R curves. Returns the EER as a fraction of 1, () or (R,).
    """
    difference = miss - false_alarm
    above = np.argmax(difference >= 0, axis=-1, keepdims=True)  # never 0: a curve starts at miss 0, false alarm 1
    low, high = (np.take_along_axis(difference, points, axis=-1) for points in (above - 1, above))
    miss_low, miss_high = (np.take_along_axis(miss, points, axis=-1) for points in (above - 1, above))
    return (miss_low - low / (high - low) * (miss_high - miss_low))[..., 0]


def eer_threshold(points: OperatingPoints) -> float:
    """The finite threshold at which miss and false alarm are nearest to each other: the EER point."""
    finite = slice(0, -1)
    return float(points.thresholds[np.argmin(np.abs(points.miss[finite] - points.false_alarm[finite]))])


def min_dcf(miss: np.ndarray, false_alarm: np.ndarray, p_target: float) -> np.ndarray:
    """The lowest normalised detection cost over all thresholds, with c_miss = c_fa = 1.

    It is divided by the lower cost of accepting all and rejecting all, so that 1 is a system that ignores the audio.
    Shapes as in `equal_error_rate`. (NIST speaker recognition evaluation plan 2016, performance measurement.)
    """
    return (p_target * miss + (1 - p_target) * false_alarm).min(axis=-1) / min(p_target, 1 - p_target)


def measure(miss: np.ndarray, false_alarm: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the metrics of one curve, or of R curves: `eer` (a fraction), `mindcf_p0.01`, `mindcf_p0.05`."""
    costs = {f"mindcf_p{p_target}": min_dcf(miss, false_alarm, p_target) for p_target in P_TARGETS}
    return {"eer": equal_error_rate(miss, false_alarm), **costs}


def cllr(scores: np.ndarray, labels: np.ndarray) -> float:
    """The cost of log-likelihood ratios (n,), in bits: 0 is perfect, and 1 is a system whose ratios are all 0.

    `scores` are natural logarithms. Both classes have equal weight. (Brummer and du Preez 2006,
    "Application-independent evaluation of speaker detection", Computer Speech and Language 20, equation 28.)
    """
    costs = np.logaddexp(0, np.where(labels, -scores, scores))
    return float(costs[labels].mean() + costs[~labels].mean()) / (2 * np.log(2))


def min_cllr(scores: np.ndarray, labels: np.ndarray) -> float:
    """The lowest Cllr of scores (n,) under any monotonic calibration.

    The optimum is the isotonic regression of the labels on the scores, by the pool-adjacent-violators algorithm (the
    same paper, section 5.2).
    """
    groups = np.unique(scores, return_inverse=True)[1]
    targets = np.bincount(groups, labels) / np.count_nonzero(labels)
    nontargets = np.bincount(groups, ~labels) / np.count_nonzero(~labels)
    weights = targets + nontargets
    posterior = isotonic_regression(targets / weights, weights=weights).x
    return float(-(xlogy(targets, posterior) + xlogy(nontargets, 1 - posterior)).sum() / (2 * np.log(2)))


def act_dcf(scores: np.ndarray, labels: np.ndarray, p_target: float) -> float:
    """The detection cost at the theoretical threshold of log-likelihood ratios (n,), ln((1 - p) / p).

    Costs and normalisation are those of `min_dcf`, which is the lower bound.
    """
    accepted = scores >= np.log((1 - p_target) / p_target)
    cost = p_target * np.mean(~accepted[labels]) + (1 - p_target) * np.mean(accepted[~labels])
    return float(cost / min(p_target, 1 - p_target))


def measure_calibrated(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Compute the metrics of log-likelihood ratios: `cllr`, `min_cllr`, `actdcf_p0.01`, `actdcf_p0.05`."""
    costs = {f"actdcf_p{p_target}": act_dcf(scores, labels, p_target) for p_target in P_TARGETS}
    return {"cllr": cllr(scores, labels), "min_cllr": min_cllr(scores, labels), **costs}
