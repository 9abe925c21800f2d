"""Calibration: log-likelihood ratios from scores, without or with quality measures of both sides (QMF).

A logistic regression is trained on trials of the training set. The network was trained on these speakers, so that these
trials are easier than others, and the log-likelihood ratios of a test set tend to be too confident. This effect is
larger for a smaller training set. If there are held-out speakers, use a list of their trials (`calibration.list`).

The quality measures are those of Thienpondt et al. 2021 ("The IDLab VoxSRC-20 submission: large margin fine-tuning and
quality-aware score calibration in DNN based speaker verification", ICASSP, section 3) and of wespeaker's VoxCeleb
recipe: for each side, the logarithm of its duration, the magnitude of its embedding before mean subtraction, and its
mean score against AS-norm's adaptive cohort. The inputs are the lower and the higher value of the two sides, so that
enroll and test can be swapped. A linear model of both can also represent their sum and difference. wespeaker adds the
ratio, which for durations is the difference of logarithms. Both recipes pair short with long training utterances; here
trials are drawn at random, with the durations of the training set.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.kaldi.tables import sorted_keys
from wespeaker_lite.kaldi.trials import Trials, make_trials
from wespeaker_lite.recipe.scoring_config import CalibrationOptions

log = logging.getLogger(__name__)

MEASURES = ("log_duration", "magnitude", "cohort_mean")
QUALITY_INPUTS = tuple(f"{end}_{measure}" for measure in MEASURES for end in ("lower", "higher"))

# L2 penalty on weights of standardised inputs. It is negligible, but gives separable trials an optimum.
PENALTY = 1e-6


@dataclass(frozen=True)
class Calibration:
    """A linear model: log-likelihood ratio = inputs @ `weights` (K,) + `bias`."""

    weights: np.ndarray
    bias: float

    def apply(self, inputs: np.ndarray) -> np.ndarray:
        """Compute natural log-likelihood ratios (n,) of trials with inputs (n, K)."""
        return inputs @ self.weights + self.bias


def train_calibration(inputs: np.ndarray, labels: np.ndarray, prior: float) -> Calibration:
    """Fit a logistic regression of labels (n,) on inputs (n, K), in double precision. The cost is convex.

    The classes are weighted by the prior, not by their numbers of trials. (Brummer and du Preez 2006,
    "Application-independent evaluation of speaker detection", Computer Speech and Language 20, section 6.)
    """
    centre, scale = inputs.mean(axis=0), inputs.std(axis=0)
    scale[scale <= 1e-9 * np.abs(centre)] = np.inf  # a constant input gets weight 0
    design = np.column_stack([(inputs - centre) / scale, np.ones(len(inputs))])
    shares = np.where(labels, prior / np.count_nonzero(labels), (1 - prior) / np.count_nonzero(~labels))
    signs, offset = np.where(labels, -1.0, 1.0), logit(prior)

    def cost(solution: np.ndarray) -> tuple[float, np.ndarray]:
        wrong = signs * (design @ solution + offset)
        gradient = design.T @ (shares * signs * expit(wrong))
        gradient[:-1] += PENALTY * solution[:-1]
        return float(shares @ np.logaddexp(0, wrong)) + PENALTY / 2 * float(solution[:-1] @ solution[:-1]), gradient

    start = np.zeros(design.shape[1])
    solution = minimize(cost, start, jac=True, method="L-BFGS-B", options={"gtol": 1e-10, "ftol": 0, "maxiter": 2000}).x
    weights = solution[:-1] / scale
    return Calibration(weights, float(solution[-1] - weights @ centre))


def draw_calibration_trials(utt2spk: Mapping[str, str], options: CalibrationOptions) -> Trials:
    """Draw random trials by `make_trials`: across sessions, if ids have sessions (`speaker-session-utterance`).

    For a large set, twice as many utterances as trials are drawn first.

    Raises:
        InputError: if no speaker has two utterances, or there is only one speaker.
    """
    try:
        return _draw(utt2spk, options)
    except InputError as error:
        raise InputError(
            f"calibration: among the training set's utterances, {error}: name a list as scoring.calibration.list, or "
            "remove scorings that end in _linear or _qmf from scoring.scorings"
        ) from error


def _draw(utt2spk: Mapping[str, str], options: CalibrationOptions) -> Trials:
    utterances = np.array(sorted_keys(utt2spk), dtype=object)
    if len(utterances) > 2 * options.trials:
        utterances = np.random.default_rng(options.seed).choice(utterances, 2 * options.trials, replace=False)
    drawn = {utterance: utt2spk[utterance] for utterance in utterances.tolist()}
    sessions = {utterance: _session(utterance, speaker) for utterance, speaker in drawn.items()}
    if len({(drawn[utterance], session) for utterance, session in sessions.items()}) == len(set(drawn.values())):
        sessions = None  # each speaker has only one
    return make_trials(drawn, options.seed, session_of=sessions, max_targets=options.trials // 2)["trials_O"]


def _session(utterance: str, speaker: str) -> str:
    """The part of an id between speaker and last part, or the whole id if there is none."""
    session, joint, _ = utterance.removeprefix(speaker).lstrip("-/").replace("/", "-").rpartition("-")
    return session if joint else utterance


def pair_quality(quality: np.ndarray, enroll: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Inputs (n, 6), in the order of QUALITY_INPUTS, of trials given by rows `enroll`, `test` of `quality` (N, 3)."""
    sides = quality[enroll], quality[test]
    return np.stack([np.minimum(*sides), np.maximum(*sides)], axis=2).reshape(len(enroll), -1)
