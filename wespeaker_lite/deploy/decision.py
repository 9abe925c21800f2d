"""Decisions from scores, by a threshold with a name."""

import math
from dataclasses import dataclass
from typing import Any

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.scoring.calibration import Calibration
from wespeaker_lite.scoring.verification import Verification

NO_THRESHOLD = "no threshold: no verify.json beside the model has one (stage 6 writes it)"


@dataclass(frozen=True)
class Rule:
    """A threshold or None, and the name of its source. With a calibration, it applies to log-likelihood ratios."""

    name: str
    threshold: float | None = None
    calibration: Calibration | None = None


def find_rule(verification: Verification | None, p_target: float | None, trials: str | None) -> Rule:
    """The rule for the prior `p_target`, or for the EER threshold of the list `trials`, by default the first list.

    Raises:
        InputError: if both are given, the prior is invalid, or the calibration or threshold is missing.
    """
    if p_target is not None and trials is not None:
        raise InputError("--p-target and --trials give two thresholds; use one")
    if p_target is not None:
        if not 0 < p_target < 1:
            raise InputError(f"--p-target {p_target:g} must be between 0 and 1")
        if verification is None or verification.calibration is None:
            raise InputError(
                "--p-target needs calibrated scores: add cosine_linear to scoring.scorings and run stage 6 again"
            )
        return Rule(f"p_target {p_target:g}", math.log((1 - p_target) / p_target), verification.calibration)
    known = verification.thresholds if verification else {}
    if trials is not None and trials not in known:
        raise InputError(f"--trials {trials}: no threshold of this list; available: {', '.join(known) or 'none'}")
    if not known:
        return Rule(NO_THRESHOLD)
    name = next(iter(known)) if trials is None else trials
    return Rule(f"EER point of {name}", known[name])


def decide(rule: Rule, score: float) -> dict[str, Any]:
    """`score`, `llr` if calibrated, `threshold`, `threshold_name`, and `same_speaker`: True, False or None."""
    llr = float(rule.calibration.weights[0] * score + rule.calibration.bias) if rule.calibration else None
    value = score if llr is None else llr
    same = None if rule.threshold is None else value >= rule.threshold
    more = {} if llr is None else {"llr": llr}
    return {"score": score, **more, "threshold": rule.threshold, "threshold_name": rule.name, "same_speaker": same}


def describe(decision: dict[str, Any]) -> str:
    """A decision as a line of text."""
    score = f"score {decision['score']:.4f}"
    if decision["threshold"] is None:
        return f"{score} ({decision['threshold_name']})"
    ratio = f", log-likelihood ratio {decision['llr']:.2f}" if "llr" in decision else ""
    answer = "same speaker" if decision["same_speaker"] else "different speakers"
    return f"{answer}: {score}{ratio}, threshold {decision['threshold']:.4f} ({decision['threshold_name']})"
