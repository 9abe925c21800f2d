"""`verify.json`: mean, thresholds and calibration of a model, with which other recordings can be compared."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.files import read_json, write_text
from wespeaker_lite.extraction.embeddings import Cohort
from wespeaker_lite.recipe.stamps import check_made
from wespeaker_lite.scoring.calibration import Calibration


@dataclass(frozen=True)
class Verification:
    """The content of verify.json: `mean` (D,) to subtract from embeddings, or None; thresholds of the EER by trial
    list; the calibration of cosine_linear, or None. `weights`: the digest of the network that it belongs to.
    """

    mean: np.ndarray | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    calibration: Calibration | None = None
    weights: str = ""

    def check(self, weights: str, name: str) -> None:
        """Raise InputError where it belongs to another network than that with these weights; old ones name none."""
        if self.weights and self.weights != weights:
            raise InputError(
                f"{name}: the verify.json beside it is of another model, and its threshold would be wrong: put that "
                "of this model there (stages 6 and 8 write it), or remove it"
            )


def write_verification(
    out: Path,
    cohort: Cohort | None,
    calibration: Calibration | None,
    results: Mapping[str, Mapping[str, Any]],
    weights: str = "",
) -> None:
    """Write `out`/verify.json, with thresholds for the lists that were scored by cosine."""
    record = {
        "weights": weights,
        "mean": cohort.mean.tolist() if cohort else None,
        "thresholds": {name: of["cosine"]["eer_threshold"] for name, of in results.items() if "cosine" in of},
        "cosine_linear": [float(calibration.weights[0]), calibration.bias] if calibration else None,
    }
    write_text(out / "verify.json", json.dumps(record) + "\n")


def read_verification(model: str | Path) -> Verification | None:
    """Read NAME.verify.json in the folder of a model, or else its verify.json. Return None if there is neither.

    Raises:
        InputError: naming the file, if its content is malformed.
    """
    path = verification_file(model)
    return _parse(path) if path else None


def verification_file(model: str | Path) -> Path | None:
    """What `read_verification` would read."""
    model = Path(model)
    places = model.with_suffix(".verify.json"), model.with_name("verify.json")
    return next((path for path in places if path.exists()), None)


def _parse(path: Path) -> Verification:
    check_made(path)
    record = read_json(path)
    try:
        mean = None if record["mean"] is None else np.array(record["mean"], np.float32).reshape(-1)
        thresholds = {str(name): float(value) for name, value in record["thresholds"].items()}
        line = record["cosine_linear"]
        calibration = None if line is None else Calibration(np.array([float(line[0])]), float(line[1]))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise InputError(f"{path}: not what stage 6 writes ({error}); run stage 6 again") from error
    return Verification(mean, thresholds, calibration, str(record.get("weights", "")))
