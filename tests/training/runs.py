"""A training run in this process, and a comparison of two runs."""

from pathlib import Path

import torch

from wespeaker_lite.data.crops import CropDataset
from wespeaker_lite.recipe import trained_model
from wespeaker_lite.recipe.experiment import Experiment
from wespeaker_lite.training.job import build_learner
from wespeaker_lite.training.trainer import Trainer


def run_here(experiment: Experiment, data: Path, out: Path) -> trained_model.TrainedModel:
    dataset = CropDataset(data, experiment.crop, experiment.seed)
    torch.manual_seed(experiment.seed)
    Trainer(build_learner(experiment, dataset), dataset, experiment, out).run()
    return trained_model.load(out / "final.pt")


def assert_same(one: trained_model.TrainedModel, other: trained_model.TrainedModel) -> None:
    for part in ("model", "head"):
        ours, theirs = (getattr(trained, part).state_dict() for trained in (one, other))
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            assert torch.equal(value, theirs[name]), name
