"""Every conf of the repository has valid keys, a network that can be built, and terms that fit student and teacher."""

from pathlib import Path

import pytest

from wespeaker_lite import models
from wespeaker_lite.deploy.cost import training_parts
from wespeaker_lite.distill.compatibility import check_compatibility
from wespeaker_lite.recipe import experiment

ROOT = Path(__file__).parents[2]
CONFS = sorted((ROOT / "conf").rglob("*.yaml"))


@pytest.mark.parametrize("path", CONFS, ids=lambda path: path.stem)
def test_a_conf_fits_together(path: Path) -> None:
    config = experiment.load(path)
    for teacher in config.distill.all_teachers:
        if config.distill.source == "crop":
            assert experiment.load(ROOT / teacher).features == config.features
        terms = check_compatibility(path, ROOT / teacher)
    if not config.distill.all_teachers:
        network = models.build(config.model["name"], config.model, config.features.num_mels)
        terms = training_parts(config, network, classes=3)
        del terms["head"]
    assert len(terms) == len(config.distill.terms)


def test_conf_names_are_unique() -> None:
    assert len(CONFS) > 10
    assert any(path.parent.name == "kd" for path in CONFS)
    assert len({path.stem for path in CONFS}) == len(CONFS)  # an experiment is called after its conf
