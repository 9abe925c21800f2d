"""Every conf of the repository: its keys are known, its network can be built, and its terms fit student and teacher."""

from pathlib import Path

import pytest

from wespeaker_lite import distill, experiment, models
from wespeaker_lite.distill.outputs import Outputs, outputs_for_silence
from wespeaker_lite.distill.term import Partners

ROOT = Path(__file__).parents[1]
CONFS = sorted((ROOT / "conf").glob("*.yaml"))


def outputs(config: experiment.Experiment) -> Outputs:
    network = models.build(config.model["name"], config.model, config.features.num_mels)
    return outputs_for_silence(network, 50, config.features.num_mels)


@pytest.mark.parametrize("path", CONFS, ids=lambda path: path.stem)
def test_a_conf_fits_together(path: Path) -> None:
    config = experiment.load(path)
    student = outputs(config)
    teacher = None
    if config.distill.teacher:
        taught_by = experiment.load(ROOT / config.distill.teacher)
        assert taught_by.features == config.features
        teacher = outputs(taught_by)
    terms = distill.build_terms(config.distill.terms, Partners(student, teacher, config.head, classes=3, frames=50))
    assert len(terms) == len(config.distill.terms)


def test_there_are_confs() -> None:
    assert len(CONFS) > 10
