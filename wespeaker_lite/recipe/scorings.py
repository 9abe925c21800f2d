"""The names of scorings: a comparison, such as `asnorm`, or a comparison and a calibration, such as `asnorm_qmf`."""

from wespeaker_lite.core.config import nearest
from wespeaker_lite.core.errors import InputError

COMPARISONS = {
    "cosine": "cosine of the embeddings after subtraction of the training set's mean",
    "snorm": "the cosine, normalised by the scores of both sides against the whole cohort",
    "asnorm": "the cosine, normalised by the `top_n` highest scores of each side against the cohort",
    "plda": "log-likelihood ratio of a two-covariance PLDA after LDA and length normalisation",
}
CALIBRATIONS = {
    "linear": "log-likelihood ratio by a logistic regression on the score",
    "qmf": "the same, also on quality measures: durations, magnitudes of embeddings, mean scores against the cohort",
}
SCORINGS = (*COMPARISONS, *(f"{comparison}_{kind}" for comparison in COMPARISONS for kind in CALIBRATIONS))
FUSION = "fusion"


def check_scoring(scoring: str) -> None:
    """Check the name of a scoring.

    Raises:
        InputError: if it is unknown, with the nearest known name.
    """
    if scoring not in SCORINGS:
        raise InputError(f"unknown scoring {scoring!r}{nearest(scoring, SCORINGS)}")


def parts(scoring: str) -> tuple[str, str]:
    """The comparison and the calibration of a scoring. The calibration is empty if there is none."""
    comparison, _, calibration = scoring.partition("_")
    return comparison, calibration


def is_calibrated(scoring: str) -> bool:
    """Whether the scores are log-likelihood ratios of a logistic regression."""
    return scoring == FUSION or bool(parts(scoring)[1])
