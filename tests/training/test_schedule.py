"""Schedules at their end points, and against those of torch."""

import math

import pytest
import torch

from wespeaker_lite.core.config import from_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.recipe.train_config import LearningRateConfig, MarginConfig
from wespeaker_lite.training.schedule import learning_rate, margin


def test_exponential_equals_wespeakers() -> None:
    config = LearningRateConfig("exponential", peak=0.1, final=1e-5, warmup_epochs=6)
    assert learning_rate(config, 0, 150) == 0
    assert learning_rate(config, 3, 150) == pytest.approx(0.5 * 0.1 * (1e-4) ** (3 / 150))
    assert learning_rate(config, 150, 150) == pytest.approx(1e-5)


@pytest.mark.parametrize("place", [0, 0.1, 0.29, 0.3, 0.5, 0.99, 1])
def test_one_cycle_equals_torchs(place: float) -> None:
    steps = 1000
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 0.2, total_steps=steps + 1, final_div_factor=2e3, pct_start=0.3
    )
    config = LearningRateConfig("one_cycle", peak=0.2, final=0.2 / 25 / 2e3, warmup_epochs=3)
    for _ in range(round(place * steps)):
        optimiser.step()
        theirs.step()
    # torch counts the warm-up in steps, one less than we do
    assert learning_rate(config, 10 * place, 10) == pytest.approx(theirs.get_last_lr()[0], abs=2e-3)


def test_cosine_and_constant() -> None:
    config = LearningRateConfig("cosine", peak=1.0, final=0.2, warmup_epochs=2)
    assert [learning_rate(config, epoch, 10) for epoch in (0, 1, 2, 6, 10)] == pytest.approx([0, 0.5, 1, 0.6, 0.2])
    constant = LearningRateConfig("constant", peak=1.0, final=0.2, warmup_epochs=2)
    assert [learning_rate(constant, epoch, 10) for epoch in (1, 2, 10)] == [0.5, 1, 1]


def test_margin_rises_between_its_epochs_and_then_is_constant() -> None:
    linear = MarginConfig("linear", initial=0.1, start_epoch=2, end_epoch=4)
    assert [margin(linear, 0.3, epoch) for epoch in (0, 2, 3, 4, 9)] == pytest.approx([0.1, 0.1, 0.2, 0.3, 0.3])
    exponential = MarginConfig("exponential", start_epoch=20, end_epoch=40)
    assert margin(exponential, 0.2, 30) == pytest.approx(0.2 * (1 - math.sqrt(1e-3)))
    assert margin(exponential, 0.2, 40) == 0.2
    at_once = MarginConfig("linear", start_epoch=0, end_epoch=0)
    assert margin(at_once, 0.2, 0) == 0.2


def test_bad_values() -> None:
    for config, options, message in (
        (LearningRateConfig, {"peak": 0.1, "final": 0.2}, "expected"),
        (LearningRateConfig, {"final": 0.0}, "final: 0.0 does not lie in"),
        (MarginConfig, {"start_epoch": 4, "end_epoch": 2}, "expected"),
    ):
        with pytest.raises(InputError, match=message):
            from_mapping(config, options, "here")
