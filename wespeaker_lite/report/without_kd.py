"""Find the experiment that differs from another only in KD, to show the effect of KD."""

import json
from pathlib import Path
from typing import Any

from wespeaker_lite.recipe import resolved, stamps


def find_without_kd(experiment: str | Path) -> Path | None:
    """Find an experiment in the same folder with the same config and seed, but without KD terms; None if there is none.

    Experiments whose config.yaml was changed after training are ignored. If there are several, the first name is used.
    """
    experiment = Path(experiment)
    ours, _ = _training_part(experiment)
    for folder in sorted(path.parent for path in experiment.parent.glob("*/config.yaml")):
        theirs, distill = _training_part(folder)
        if folder != experiment and theirs == ours and not distill["terms"] and _is_trained(folder):
            return folder
    return None


def _training_part(experiment: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The sections of a resolved config that change trained weights, except `distill`; and `distill`."""
    config = resolved.read(experiment / "config.yaml")
    sections = {name: section for name, section in config.items() if name not in ("runtime", "scoring", "distill")}
    return sections, config.get("distill", {})


def _is_trained(experiment: Path) -> bool:
    """Whether final.pt was trained with the current config.yaml, by the stamp of training."""
    try:
        known = json.loads((experiment / ".train.stamp").read_text(encoding="utf-8"))["inputs"]
    except (FileNotFoundError, ValueError, KeyError):
        return False
    sections = (*_training_part(experiment)[0], "distill")
    digests = stamps.Inputs(config=str(experiment / "config.yaml"), sections=sections).digests()
    return digests.items() <= known.items() and (experiment / "final.pt").exists()
