"""Devices: names, precision, and one line if memory is too small."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.training.runs import assert_same, run_here
from wespeaker_lite.core.devices import device_of, explain_out_of_memory, precision_on
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.recipe.experiment import Experiment
from wespeaker_lite.training.distributed import _take_gpu
from wespeaker_lite.training.trainer import Trainer

CUDA_SAYS = (
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.06 GiB is "
    "free. Process 1 has 78.04 GiB memory in use."
)


def test_a_full_gpu_gets_one_line() -> None:
    expected = "the GPU's memory is too small for 8 crops: 2.50 GiB more are needed; take 4"
    with pytest.raises(InputError, match=expected), explain_out_of_memory("8 crops", "take 4"):
        raise torch.OutOfMemoryError(CUDA_SAYS)


def test_full_host_memory_gets_one_line() -> None:
    expected = r"^memory is too small for 8 crops: .* needed.*; take 4"
    with pytest.raises(InputError, match=expected), explain_out_of_memory("8 crops", "take 4"):
        torch.empty(1 << 55)


def test_other_errors_are_not_changed() -> None:
    with pytest.raises(RuntimeError, match="a defect"), explain_out_of_memory("x", "y"):
        raise RuntimeError("a defect")


def test_training_keeps_its_last_checkpoint_if_memory_runs_out(
    small: Callable[..., Experiment], small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_here(small(), small_data, tmp_path / "whole")
    step = Trainer._step

    def full(self: Trainer, batch: object) -> object:
        if self.epoch == 1 and self.batch == 3:
            raise torch.OutOfMemoryError(CUDA_SAYS)
        return step(self, batch)

    monkeypatch.setattr(Trainer, "_step", full)
    message = r"a batch of 8 crops of 40 frames \(a process\) in fp32: 2.50 GiB more.* checkpoint is in .*checkpoints"
    with pytest.raises(InputError, match=message):
        run_here(small(), small_data, tmp_path / "parts")
    monkeypatch.undo()
    assert_same(whole, run_here(small(), small_data, tmp_path / "parts"))


def test_precision_by_device() -> None:
    assert precision_on(torch.device("cpu"), "auto") == "fp32"
    assert precision_on(torch.device("cpu"), "bf16") == "bf16"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_an_error() -> None:
    with pytest.raises(InputError, match="--device 'cuda': "):
        device_of("cuda", "--device")
    assert device_of("auto").type == "cpu"


@pytest.mark.parametrize(
    ("device", "rank", "visible", "backend", "own"),
    [
        ("cpu", 1, "0,1", "gloo", None),
        ("auto", 1, "0,1", "cpu:gloo,cuda:nccl", 1),
        ("cuda", 0, None, "cpu:gloo,cuda:nccl", 0),
        ("cuda", 1, "MIG-a,MIG-b", "gloo", 0),
        ("cuda:0", 1, "0", "gloo", torch.device("cuda:0")),
        ("cuda", 2, "0,1", "process 3 of this node has no GPU: there are 2 (CUDA_VISIBLE_DEVICES 0,1)", None),
        ("cuda", 2, "MIG-a,MIG-b", "process 3 of this node has no GPU: there are 2", None),
    ],
)
def test_each_rank_uses_its_own_gpu(
    monkeypatch: pytest.MonkeyPatch, device: str, rank: int, visible: str | None, backend: str, own: object
) -> None:
    taken: list[object] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    if backend.startswith("process"):
        with pytest.raises(InputError) as caught:
            _take_gpu(device, rank)
        assert str(caught.value).startswith(backend)
        return
    assert _take_gpu(device, rank) == backend
    assert taken == ([] if own is None else [own])
    if visible and "MIG" in visible:
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "MIG-b"
