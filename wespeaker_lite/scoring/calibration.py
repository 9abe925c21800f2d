"""Calibration: log-likelihood ratios from scores, alone or with quality measures of both sides (QMF).

A logistic regression is trained on trials of its own among the utterances of the training set. The network has seen
their speakers, which makes these trials easier than those with speakers it has not seen: the ratios of a test set tend
to be too confident, the more so the smaller the training set. Where there are speakers that were held out, name a list
of trials among them (`calibration.list`).

The quality measures are those of Thienpondt et al. 2021 ("The IDLab VoxSRC-20 submission: large margin fine-tuning and
quality-aware score calibration in DNN based speaker verification", ICASSP, section 3) and of wespeaker's VoxCeleb
recipe, of each side: the logarithm of its duration, the magnitude of its embedding before centring, and its mean score
against AS-norm's adaptive cohort. Of each, the lower and the higher of the two sides are inputs, so that enroll and
test may change places. (A linear model of both is one of their sum and distance too; the ratio that wespeaker adds is
for durations the distance of logarithms.) Both recipes pair short with long training utterances on purpose; here trials
are drawn at random, and have what durations the training set has.
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

# On weights of standardised inputs: too small to show in a figure, but trials that a score tells apart have an optimum.
PENALTY = 1e-6


@dataclass(frozen=True)
class Calibration:
    """A linear model: log-likelihood ratio = `weights` (K,) times inputs, plus `bias`."""

    weights: np.ndarray
    bias: float

    def apply(self, inputs: np.ndarray) -> np.ndarray:
        """Log-likelihood ratios (n,), natural, of trials with inputs (n, K)."""
        return inputs @ self.weights + self.bias


def train_calibration(inputs: np.ndarray, labels: np.ndarray, prior: float) -> Calibration:
    """Logistic regression of labels (n,) on inputs (n, K), in double precision, to the optimum (the cost is convex).

    Each class counts by the prior, however many trials it has. (Brummer and du Preez 2006, "Application-independent
    evaluation of speaker detection", Computer Speech and Language 20, section 6.)
    """
    centre, scale = inputs.mean(axis=0), inputs.std(axis=0)
    scale[scale <= 1e-9 * np.abs(centre)] = np.inf  # an input that is always the same gets weight 0
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
    """Draw trials by seed, as `make_trials`: across sessions where ids show any (`speaker-session-utterance`).

    Of a large set, twice as many utterances as trials are drawn first.

    Raises:
        InputError: where no speaker has two utterances, or there is one speaker only.
    """
    try:
        return _draw(utt2spk, options)
    except InputError as error:
        raise InputError(
            f"calibration: among the training set's utterances, {error}: name a list as scoring.calibration.list, or "
            "leave scorings that end in _linear or _qmf out of scoring.scorings"
        ) from error


def _draw(utt2spk: Mapping[str, str], options: CalibrationOptions) -> Trials:
    utterances = np.array(sorted_keys(utt2spk), dtype=object)
    if len(utterances) > 2 * options.trials:
        utterances = np.random.default_rng(options.seed).choice(utterances, 2 * options.trials, replace=False)
    drawn = {utterance: utt2spk[utterance] for utterance in utterances.tolist()}
    sessions = {utterance: _session(utterance, speaker) for utterance, speaker in drawn.items()}
    if len({(drawn[utterance], session) for utterance, session in sessions.items()}) == len(set(drawn.values())):
        sessions = None  # each speaker has but one
    return make_trials(drawn, options.seed, session_of=sessions, max_targets=options.trials // 2)["trials_O"]


def _session(utterance: str, speaker: str) -> str:
    """What stands between speaker and last part of an id, or the id where there is nothing between."""
    session, joint, _ = utterance.removeprefix(speaker).lstrip("-/").replace("/", "-").rpartition("-")
    return session if joint else utterance


def pair_quality(quality: np.ndarray, enroll: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Inputs (n, 6), in the order of QUALITY_INPUTS, of trials of rows `enroll` and `test` (n,) of `quality` (N, 3)."""
    sides = quality[enroll], quality[test]
    return np.stack([np.minimum(*sides), np.maximum(*sides)], axis=2).reshape(len(enroll), -1)
