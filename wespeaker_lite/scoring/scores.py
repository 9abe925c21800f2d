"""Score files: a line `enroll test score label` for every trial, without a header."""

import math
import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import numpy as np

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.files import write_lines
from wespeaker_lite.kaldi.trials import KALDI_LABELS, Trials, read_rows
from wespeaker_lite.recipe.stamps import check_made

DECIMALS = 6
CALIBRATION_LIST = "calibration"
# float() would also accept nan, 1_0, and digits of other scripts.
_ROW = re.compile(r"\s*(\S+)\s+(\S+)\s+([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)\s+(target|nontarget)\s*")


def score_file(experiment: str | Path, trials: str, scoring: str) -> Path:
    """The score file of a trial list, or of the training trials of calibration."""
    return Path(experiment) / "scores" / f"{trials}.{scoring}.score"


def write_scores(path: str | Path, trials: Trials, scores: np.ndarray) -> None:
    """Write scores (n,) with six decimals. The file appears whole or not at all."""
    kinds = np.where(trials.labels, "target", "nontarget").tolist()
    fields = zip(trials.enroll, trials.test, scores.tolist(), kinds, strict=True)
    write_lines(path, (f"{enroll} {test} {score:.{DECIMALS}f} {kind}\n" for enroll, test, score, kind in fields))


def read_scores(path: str | Path) -> tuple[Trials, np.ndarray]:
    """Read a score file into its trials and scores (n,) float64.

    Raises:
        InputError: naming file and line where fields are not four, the score is no number or the label unknown; or
            where the file is not as stage 6 left it.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file; run stage 6 first")
    check_made(path)
    enroll, test, labels, scores = [], [], [], []
    for number, row in enumerate(read_rows(path), start=1):
        fields = _ROW.fullmatch(row)
        if not fields or not math.isfinite(float(fields[3])):
            raise InputError(f"{path}:{number}: expected 'enroll test score target|nontarget', found {row.strip()!r}")
        enroll.append(fields[1])
        test.append(fields[2])
        scores.append(float(fields[3]))
        labels.append(KALDI_LABELS[fields[4]])
    return Trials(enroll, test, np.array(labels), str(path)), np.array(scores)


def check_same_trials(trials: Trials, first: Trials) -> None:
    """Check that two score files have the same trials in the same order, for paired comparisons and fusion.

    Raises:
        InputError: naming both files and the first line that differs.
    """
    sides = (trials.enroll, first.enroll), (trials.test, first.test), (trials.labels.tolist(), first.labels.tolist())
    if all(ours == theirs for ours, theirs in sides):
        return
    pairs = enumerate(zip_longest(_lines(trials), _lines(first), fillvalue="the end"), start=1)
    number, (ours, theirs) = next((number, pair) for number, pair in pairs if pair[0] != pair[1])
    raise InputError(
        f"{trials.path} does not have the trials of {first.path} in the same order: line {number} is {ours!r} here, "
        f"{theirs!r} there; score both on one list"
    )


def _lines(trials: Trials) -> Iterator[str]:
    for enroll, test, label in zip(trials.enroll, trials.test, trials.labels.tolist(), strict=True):
        yield f"{enroll} {test} {'target' if label else 'nontarget'}"
