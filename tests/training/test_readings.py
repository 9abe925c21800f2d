"""A training step keeps its losses on the device, and never makes the host wait for a value."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.training.learners import NETWORKS, TERMS, batch_of, learner_of
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.training.distributed import Ranks
from wespeaker_lite.training.learner import Losses
from wespeaker_lite.training.readings import Readings

# Operations that return a value to the host, or a tensor whose size depends on device data.
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "equal", "is_nonzero")


class Waits(TorchDispatchMode):
    """Collects the calls that would make the host wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put_") and any(i is not None and i.dtype == torch.bool for i in args[1])
        if name.startswith(WAITING) or by_mask:
            self.calls.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("term", ["none", *TERMS])
@pytest.mark.parametrize("few_classes", [False, True], ids=["", "teacher of fewer classes"])
def test_a_step_does_not_wait_for_the_device(network: str, term: str, few_classes: bool) -> None:
    try:
        learner = learner_of(network, [{"name": term}] if term != "none" else [])
    except InputError as error:
        pytest.skip(str(error))
    teacher = learner.teacher
    if few_classes:
        forward = teacher.forward

        def narrowed(*args: Any, **options: Any) -> Any:
            outputs = forward(*args, **options)
            outputs.cosine_logits, outputs.margin_logits = outputs.cosine_logits[:, :3], outputs.margin_logits[:, :3]
            outputs.classes = torch.tensor([0, 2, 3])
            return outputs

        teacher.forward = narrowed
    feats, labels = batch_of()
    readings = Readings()
    with Waits() as waits:
        losses = learner(feats, labels, labels, 1.0)
        losses.total.backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        readings.add(losses, 0.0)
    assert waits.calls == []
    with Waits() as waits:
        losses.total.item()
    assert waits.calls == ["_local_scalar_dense"]


def test_values_are_returned_in_order_with_their_names() -> None:
    readings = Readings()
    for step in range(3):
        parts = {"class": torch.tensor(step + 0.25)} | ({"label": torch.tensor(7.0)} if step == 1 else {})
        readings.add(Losses(torch.tensor(step + 0.5), parts, torch.tensor(0.125), {}), waited=step)
    first, second, third = readings.read(Ranks())
    assert first == ({"loss": 0.5, "class": 0.25, "accuracy": 0.125}, 0)
    assert second == ({"loss": 1.5, "class": 1.25, "label": 7.0, "accuracy": 0.125}, 1)
    assert third.values["loss"] == 2.5
    assert readings.read(Ranks()) == []
