"""A signal before the end, as at a time limit: training writes a checkpoint, and trains no batch twice."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.runs import assert_same, run_here
from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.core.errors import Stopped
from wespeaker_lite.recipe import resolved
from wespeaker_lite.recipe.experiment import Experiment
from wespeaker_lite.training.stopping import SIGNALS, StopRequest
from wespeaker_lite.training.trainer import Trainer

Small = Callable[..., Experiment]
NO_CHECKPOINTS = {"checkpoint_batches": 0}  # but at the ends of epochs


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_training_stops_after_the_current_batch_and_trains_none_twice(
    small: Small, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    experiment = small(runtime=NO_CHECKPOINTS)
    whole = run_here(experiment, small_data, tmp_path / "whole")
    steps, step = [], Trainer._step

    def signalled(self: Trainer, batch: object) -> object:
        steps.append((self.epoch, self.batch))
        if len(steps) == 8:
            os.kill(os.getpid(), number)
        return step(self, batch)

    monkeypatch.setattr(Trainer, "_step", signalled)
    before = signal.getsignal(number)
    with pytest.raises(
        Stopped, match=f"{number.name}: stopping; a checkpoint is written after epoch 1, batch 3"
    ) as stop:
        run_here(experiment, small_data, tmp_path / "parts")
    assert stop.value.signal == number
    assert signal.getsignal(number) == before
    assert len(steps) == 8
    assert_same(whole, run_here(experiment, small_data, tmp_path / "parts"))
    assert steps == [(epoch, batch) for epoch in range(3) for batch in range(5)]


def test_a_signal_in_the_last_batch_of_an_epoch_stops_after_it(
    small: Small, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if an epoch has only one batch."""
    step = Trainer._step

    def signalled(self: Trainer, batch: object) -> object:
        os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch)

    monkeypatch.setattr(Trainer, "_step", signalled)
    with pytest.raises(Stopped, match="after epoch 1, batch 0"):
        run_here(small(train={"batch_size": 40}, runtime=NO_CHECKPOINTS), small_data, tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["epoch_0001_batch_000000.pt"]


def test_a_signal_in_the_very_last_batch_does_not_stop_training(
    small: Small, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer._step

    def signalled(self: Trainer, batch: object) -> object:
        if (self.epoch, self.batch) == (2, 4):
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch)

    monkeypatch.setattr(Trainer, "_step", signalled)
    run_here(small(runtime=NO_CHECKPOINTS), small_data, tmp_path)


def test_workers_survive_a_signal_to_the_group_until_the_checkpoint(
    small: Small, small_data: Path, tmp_path: Path, repository: Path
) -> None:
    experiment = small(train={"epochs": 400, "crops_per_epoch": 400}, runtime={"workers": 2, **NO_CHECKPOINTS})
    resolved.write(tmp_path / "config.yaml", to_mapping(experiment))
    command = [sys.executable, "-m", "wespeaker_lite.bin.train", "--config", tmp_path / "config.yaml",
               "--data", small_data, "--out", tmp_path]  # fmt: skip
    process = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(repository)}, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    log = tmp_path / "train.log"
    while not log.exists() or "batch 6/50" not in log.read_text():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGTERM)
    try:
        said = process.communicate(timeout=300)[1]
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "Traceback" not in said
    assert "stopping; a checkpoint is written after epoch" in said
    assert "stopping; a checkpoint" in log.read_text()


def test_without_a_signal_no_stop_is_requested() -> None:
    with StopRequest() as request:
        assert request.signal is None
