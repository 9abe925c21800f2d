"""The gradient norm of each loss at the student's network, and a self-teacher with its own learning rate."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from wespeaker_lite.data.crops import CropDataset
from wespeaker_lite.recipe.experiment import Experiment
from wespeaker_lite.recipe.train_config import OptimiserConfig
from wespeaker_lite.training.gradients import gradients_by_loss
from wespeaker_lite.training.job import build_learner
from wespeaker_lite.training.optimiser import build_optimiser, set_learning_rate
from wespeaker_lite.training.trainer import Trainer

Small = Callable[..., Experiment]


def test_norms_and_cosines_equal_manual_results() -> None:
    a, b = nn.Parameter(torch.tensor([3.0, 0.0])), nn.Parameter(torch.tensor(2.0))
    losses = {"class": (a * torch.tensor([3.0, 4.0])).sum(), "kd": 2 * a[0] + 0 * b, "none": torch.zeros(())}
    figures = {name: value.item() for name, value in gradients_by_loss(losses, [a, b]).items()}
    assert figures == pytest.approx(
        {"gradient_class": 5, "gradient_kd": 2, "gradient_none": 0, "cosine_kd": 0.6, "cosine_none": 0}
    )
    assert a.grad is None


def test_gradient_norms_are_logged_at_intervals_and_do_not_change_the_weights(
    small: Small, small_data: Path, tmp_path: Path
) -> None:
    weights = []
    for every in (0, 3):
        section = {"terms": [{"name": "self_teacher", "learning_rate": 2.0}]}
        experiment = small(distill=section, train={"epochs": 1}, runtime={"log_gradients": every, "log_every": 1})
        dataset = CropDataset(small_data, experiment.crop, 0)
        torch.manual_seed(0)
        learner = build_learner(experiment, dataset)
        out = tmp_path / str(every)
        trainer = Trainer(learner, dataset, experiment, out)
        trainer.run()
        groups = trainer.optimiser.param_groups
        assert [group["lr"] / groups[0]["lr"] for group in groups] == pytest.approx([1, 1, 2, 2])
        weights.append(learner.student.state_dict())
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        logged = [line["batch"] for line in lines if "gradient_self_label" in line]
        assert logged == ([1, 4, 0] if every else [])  # 0: the whole epoch
        if every:
            names = {"class", "self_class", "self_label", "self_feature"}
            assert {key for key in lines[0] if "gradient" in key} == {f"gradient_{name}" for name in names}
            assert all(lines[0][f"gradient_{name}"] > 0 for name in names)
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_groups_of_parameters_with_a_rate_of_their_own() -> None:
    module = nn.Linear(2, 2)
    optimiser = build_optimiser(OptimiserConfig(), module.parameters(), rates={module.weight: 3.0})
    set_learning_rate(optimiser, 0.1)
    rates = {id(p): group["lr"] for group in optimiser.param_groups for p in group["params"]}
    assert (rates[id(module.weight)], rates[id(module.bias)]) == pytest.approx((0.3, 0.1))
