"""runtime.compile: used if it works and gives the same results; otherwise one line, and training without it."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.training.learners import batch_of, learner_of
from tests.training.runs import assert_same, run_here
from wespeaker_lite.recipe.experiment import Experiment
from wespeaker_lite.training import compiling

Small = Callable[..., Experiment]


def test_a_compiled_network_gives_the_same_numbers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With dynamo only: code generation takes minutes and is tested on GPUs."""
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    caplog.set_level("INFO", logger="wespeaker_lite")
    learner, plain = (learner_of("ecapa_tdnn", [{"name": "embedding"}]) for _ in range(2))
    feats, labels = batch_of()
    kept = {name: value.clone() for name, value in learner.state_dict().items()}

    def step() -> torch.Tensor:
        losses = learner(feats, labels, labels, 0.0)
        losses.total.backward()
        return losses.total.detach()

    worked = compiling.compile_where_it_pays(learner, "on", step)
    assert worked, caplog.text
    assert all(torch.equal(value, kept[name]) for name, value in learner.state_dict().items())
    expected = plain(feats, labels, labels, 0.0)
    expected.total.backward()
    torch.testing.assert_close(step(), expected.total.detach())
    for ours, theirs in zip(learner.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-5)


def test_a_compiler_that_fails_gives_one_line(
    small: Small, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="wespeaker_lite")
    plain = run_here(small(train={"epochs": 1}), small_data, tmp_path / "plain")

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr(compiling, "BACKEND", backend)
    tried = run_here(small(train={"epochs": 1}, runtime={"compile": "on"}), small_data, tmp_path / "tried")
    assert_same(plain, tried)
    said = [line for line in caplog.messages if line.startswith("training continues without torch.compile")]
    assert len(said) == 1
    assert "no compiler here" in said[0]
    assert "\n" not in said[0]


@pytest.mark.parametrize(
    ("compiled", "seconds", "reason"),
    [
        (10.0, 0.1, ""),
        (10.1, 0.1, ""),
        (10.3, 0.1, "loss of 10.3"),
        (math.nan, 0.1, "loss of nan"),
        (10.0, 0.3, "ms"),
    ],
)
def test_different_results_or_slower_steps_are_not_used(compiled: float, seconds: float, reason: str) -> None:
    said = compiling._why_not(10.0, 0.2, compiled, seconds)
    assert reason in said
    assert bool(said) == bool(reason)
