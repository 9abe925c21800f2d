"""Complete trainings on the device: fp16 with skipped steps, a resumed run, two processes on one GPU."""

import functools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.training.runs import run_here
from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.recipe import resolved
from wespeaker_lite.recipe.experiment import Experiment

Small = Callable[..., Experiment]


def losses(out: Path) -> list[float]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if line["event"] == "done"]


def test_training_continues_after_skipped_steps(
    device: torch.device, small: Small, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.amp, "GradScaler", functools.partial(torch.amp.GradScaler, init_scale=2.0**30))
    experiment = small(train={"precision": "fp16", "epochs": 8}, runtime={"device": device.type})
    run_here(experiment, small_data, tmp_path)
    newest = sorted((tmp_path / "checkpoints").glob("*.pt"))[-1]
    assert torch.load(newest)["scaler"]["scale"] < 2.0**30
    assert losses(tmp_path)[-1] < losses(tmp_path)[0]


@pytest.mark.parametrize("choice", ["off", "on"])
def test_training_learns(device: torch.device, small: Small, small_data: Path, tmp_path: Path, choice: str) -> None:
    if choice == "on" and device.type == "cpu":
        pytest.skip("torch.compile is tested on GPUs only")
    runtime = {"device": device.type, "compile": choice}
    run_here(small(train={"epochs": 8}, runtime=runtime), small_data, tmp_path)
    assert losses(tmp_path)[-1] < losses(tmp_path)[0]


def command_of(experiment: Experiment, data: Path, out: Path, processes: int = 1) -> list[str]:
    resolved.write(out / "config.yaml", to_mapping(experiment))
    program = ["-m", "wespeaker_lite.bin.train", "--config", str(out / "config.yaml"), "--data", str(data)]
    together = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [sys.executable, *(together if processes > 1 else []), *program, "--out", str(out)]


def environment(repository: Path) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(repository), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


def test_a_killed_run_resumes(
    device: torch.device, small: Small, small_data: Path, tmp_path: Path, repository: Path
) -> None:
    experiment = small(train={"epochs": 40}, runtime={"device": device.type, "checkpoint_batches": 1})
    command = command_of(experiment, small_data, tmp_path)
    process = subprocess.Popen(command, env=environment(repository), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("checkpoints/epoch_000[1-9]_batch_000003.pt")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    again = subprocess.run(command, env=environment(repository), capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr[-2000:]
    assert "resuming after epoch" in again.stderr
    assert losses(tmp_path)[-1] < losses(tmp_path)[0]


def test_two_processes_share_one_device(
    device: torch.device, small: Small, small_data: Path, tmp_path: Path, repository: Path
) -> None:
    """With local batch norms and overlapped gradients, which tests/training does not test with two processes."""
    runtime = {"device": "cuda:0" if device.type == "cuda" else "cpu", "overlap_gradients": True}
    experiment = small(train={"epochs": 2, "batch_norm": "local"}, runtime=runtime)
    command = command_of(experiment, small_data, tmp_path, processes=2)
    done = subprocess.run(command, env=environment(repository), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "statistics of batch norms are of each process' own crops" in done.stderr
    assert (tmp_path / "final.pt").exists()
