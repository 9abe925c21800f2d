"""The names of scorings: how trials are compared, and whether the scores are then calibrated.

`cosine`, `snorm`, `asnorm` and `plda` are four ways to compare; `_linear` or `_qmf` behind one of them stands for a
calibration of its scores to log-likelihood ratios, by a logistic regression on the score alone or on the score and
quality measures: `asnorm_qmf`.
"""

from wespeaker_lite.core.config import nearest
from wespeaker_lite.core.errors import InputError

COMPARISONS = ("cosine", "snorm", "asnorm", "plda")
CALIBRATIONS = ("linear", "qmf")
SCORINGS = (*COMPARISONS, *(f"{comparison}_{kind}" for comparison in COMPARISONS for kind in CALIBRATIONS))
FUSION = "fusion"


def check_scoring(scoring: str) -> None:
    """Check that a scoring can be asked for.

    Raises:
        InputError: with the nearest known one, where it is unknown.
    """
    if scoring not in SCORINGS:
        raise InputError(f"unknown scoring {scoring!r}{nearest(scoring, SCORINGS)}")


def parts(scoring: str) -> tuple[str, str]:
    """The comparison and the calibration, or an empty string where the scores stay as they are."""
    comparison, _, calibration = scoring.partition("_")
    return comparison, calibration


def is_calibrated(scoring: str) -> bool:
    """Whether scores are log-likelihood ratios that a logistic regression has made."""
    return scoring == FUSION or bool(parts(scoring)[1])
