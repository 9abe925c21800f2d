"""A training step, extraction and crops on the device, compared with the CPU in float64."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.learners import NETWORKS, TERMS, batch_of, learner_of
from wespeaker_lite import models
from wespeaker_lite.core.devices import explain_out_of_memory
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.data.crops import CropDataset
from wespeaker_lite.data.sampler import Request
from wespeaker_lite.extraction.extract import embed
from wespeaker_lite.recipe.experiment import Experiment
from wespeaker_lite.training.learner import Learner

Small = Callable[..., Experiment]


def gradients_of(
    learner: Learner, device: torch.device, feats: torch.Tensor, half: bool = False
) -> tuple[float, list[torch.Tensor]]:
    """Loss and gradients of a step on a device; the gradients are returned in float64 on the CPU."""
    learner.move_to(device)
    feats, labels = feats.to(device), batch_of()[1].to(device)
    with torch.autocast(device.type, torch.bfloat16, enabled=half):
        losses = learner(feats, labels, labels, 1.0)
    losses.total.backward()
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in learner.parameters()]
    return losses.total.item(), [grad.double().cpu() for grad in grads]


def errors_of(step: tuple[float, list[torch.Tensor]], exact: tuple[float, list[torch.Tensor]]) -> tuple[float, float]:
    """The relative error of the loss, and the largest relative error of a gradient.

    The error of a small gradient is relative to the norm of all gradients.
    """
    (loss, grads), (exact_loss, exact_grads) = step, exact
    total = torch.stack([grad.norm() for grad in exact_grads]).norm()
    far = [((a - b).norm() / (b.norm() + 1e-2 * total)).item() for a, b in zip(grads, exact_grads, strict=True)]
    return abs(loss - exact_loss) / abs(exact_loss), max(far)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("term", ["none", *TERMS])
@pytest.mark.parametrize(("half", "tolerance"), [(False, 1e-4), (True, 2e-2)], ids=["fp32", "bf16"])
def test_a_step_equals_that_of_the_cpu_in_float64(
    device: torch.device, network: str, term: str, half: bool, tolerance: float
) -> None:
    """Within the tolerance, or twice the CPU's error in the same precision: deep networks amplify rounding."""
    try:
        learners = [learner_of(network, [{"name": term}] if term != "none" else []) for _ in range(3)]
    except InputError as error:
        pytest.skip(str(error))
    feats, cpu = batch_of()[0], torch.device("cpu")
    learners[0].double().teacher.double()
    exact = gradients_of(learners[0], cpu, feats.double())
    yardstick = errors_of(gradients_of(learners[1], cpu, feats, half), exact)
    for error, allowed in zip(errors_of(gradients_of(learners[2], device, feats, half), exact), yardstick, strict=True):
        assert error <= max(tolerance, 2 * allowed)


@pytest.mark.parametrize("network", NETWORKS)
def test_embeddings_equal_those_of_the_cpu_and_do_not_depend_on_the_batch(device: torch.device, network: str) -> None:
    torch.manual_seed(3)
    ours = models.build(network, NETWORKS[network], num_mels=10).eval()
    theirs = copy.deepcopy(ours).double()
    ours.to(device)
    feats = [torch.randn(frames, 10) for frames in (35, 60, 97)]
    together = embed(ours, feats, device)
    for feat, embedding in zip(feats, together, strict=True):
        alone = embed(ours, [feat], device)[0]
        torch.testing.assert_close(embedding, alone, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(alone.double(), embed(theirs, [feat.double()])[0].double(), rtol=1e-4, atol=1e-4)


def test_noisy_and_reverberant_crops_are_decoded_as_on_the_cpu(
    device: torch.device, small: Small, small_data: Path, noise: Path
) -> None:
    masks = {"freq_masks": 1, "time_masks": 1}
    config = small(
        crop={"noise": {"probability": 0.4, "kinds": ["noise"]}, "reverb": {"probability": 0.4}, "spec_augment": masks}
    ).crop
    mapped, cut = (CropDataset(small_data, config, 3, noise) for _ in range(2))
    cut.make_resident(device)
    request = Request(0, np.arange(40))
    expected = mapped[request]
    torch.testing.assert_close(mapped[request].to(device).feats.cpu(), expected.feats, rtol=1e-4, atol=1e-3)
    resident = cut[request].to(device)
    assert torch.equal(resident.raw.cpu(), expected.raw)
    torch.testing.assert_close(resident.feats.cpu(), expected.feats, rtol=1e-4, atol=1e-3)


def test_out_of_memory_gets_one_line(device: torch.device) -> None:
    expected = r"is too small for 8 crops: .* needed.*; take 4"
    with pytest.raises(InputError, match=expected), explain_out_of_memory("8 crops", "take 4"):
        torch.empty(1 << 50, dtype=torch.uint8, device=device)
