"""The training loop: it learns, resumes bit for bit after SIGKILL, and has clear errors."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.runs import assert_same, run_here
from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.data.crops import CropDataset
from wespeaker_lite.recipe import resolved, trained_model
from wespeaker_lite.recipe.experiment import Experiment
from wespeaker_lite.training.checkpoint import CheckpointStore
from wespeaker_lite.training.job import build_learner
from wespeaker_lite.training.trainer import Trainer

Small = Callable[..., Experiment]


def metrics(out: Path, event: str) -> list[dict]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


def test_it_learns_and_writes_a_model_that_loads(small: Small, small_data: Path, tmp_path: Path) -> None:
    trained = run_here(small(train={"epochs": 12}), small_data, tmp_path)
    ends = metrics(tmp_path, "done")
    assert [end["epoch"] for end in ends] == list(range(1, 13))
    assert ends[-1]["accuracy"] > 0.9 > 0.5 > ends[0]["accuracy"]
    assert ends[-1]["margin"] == pytest.approx(0.1)
    assert trained.classes == ["s0", "s1", "s2", "s3", "s4"]
    assert not trained.model.training
    assert trained.model(torch.randn(2, 30, 10)).shape == (2, 8)


def test_final_weights_are_the_mean_of_the_last_epochs(small: Small, small_data: Path, tmp_path: Path) -> None:
    trained = run_here(small(), small_data, tmp_path)
    ends = [torch.load(tmp_path / f"checkpoints/epoch_{n:04d}_batch_000000.pt")["learner"] for n in (2, 3)]
    for name, value in trained.model.state_dict().items():
        states = [end[f"student.{name}"].double() for end in ends]
        mean = (states[0] + states[1]) / 2 if value.is_floating_point() else states[1]
        torch.testing.assert_close(value, mean.to(value.dtype))


def test_the_result_depends_on_the_seed(small: Small, small_data: Path, tmp_path: Path) -> None:
    runs = [run_here(small(seed=seed), small_data, tmp_path / name) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    assert_same(runs[0], runs[1])
    with pytest.raises(AssertionError):
        assert_same(runs[0], runs[2])


class Stopped(Exception):
    pass


@pytest.mark.parametrize(
    ("stop_at", "train"), [(3, {}), (5, {"sampling": "speaker"}), (9, {"sampling": "speaker"}), (5, {"quantize": True})]
)
def test_a_stopped_run_resumes_bit_for_bit(
    small: Small, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop_at: int, train: dict
) -> None:
    experiment = small(train=train)
    whole = run_here(experiment, small_data, tmp_path / "whole")
    steps = 0
    step = Trainer._step

    def stopping(self: Trainer, batch: object) -> object:
        nonlocal steps
        steps += 1
        if steps == stop_at:
            raise Stopped
        return step(self, batch)

    monkeypatch.setattr(Trainer, "_step", stopping)
    with pytest.raises(Stopped):
        run_here(experiment, small_data, tmp_path / "parts")
    assert_same(whole, run_here(experiment, small_data, tmp_path / "parts"))
    ours, theirs = (metrics(tmp_path / name, "done") for name in ("whole", "parts"))
    # the means of an epoch that was broken off are over its second part; whole epochs are the same
    assert [end["step"] for end in ours] == [end["step"] for end in theirs]


def test_sigkill_in_mid_epoch_then_the_same_command(small: Small, small_data: Path, tmp_path: Path) -> None:
    experiment = small(train={"epochs": 10}, runtime={"checkpoint_batches": 1})
    whole = run_here(experiment, small_data, tmp_path / "whole")
    out = tmp_path / "killed"
    resolved.write(out / "config.yaml", to_mapping(experiment))
    command = [sys.executable, "-m", "wespeaker_lite.bin.train", "--config", out / "config.yaml", "--data", small_data,
               "--out", out]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list(out.glob("checkpoints/epoch_000[2-9]_batch_000003.pt")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert not (out / "final.pt").exists()
    subprocess.run(command, env=environment, stderr=subprocess.DEVNULL, check=True)
    assert_same(whole, trained_model.load(out / "final.pt"))
    assert "resuming after epoch" in (out / "train.log").read_text()
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


def test_a_truncated_checkpoint_is_set_aside_and_the_previous_one_is_used(
    small: Small, small_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = run_here(small(), small_data, tmp_path)
    newest = sorted((tmp_path / "checkpoints").glob("*.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    (tmp_path / "final.pt").unlink()
    assert_same(whole, run_here(small(), small_data, tmp_path))
    assert f"{newest}: cut" in caplog.text
    assert newest.with_suffix(".cut").exists()


@pytest.mark.parametrize("removed", [False, True])
def test_an_epoch_that_the_mean_needs_is_trained_again(
    small: Small, small_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, removed: bool
) -> None:
    caplog.set_level("INFO")
    whole = run_here(small(), small_data, tmp_path)
    before, older, newest = sorted((tmp_path / "checkpoints").glob("*_batch_000000.pt"))[-3:]
    if removed:
        older.unlink()
    else:
        older.write_bytes(older.read_bytes()[:1000])
    assert_same(whole, run_here(small(), small_data, tmp_path))
    assert "the end of epoch 2 is needed for the mean and is trained again" in caplog.text
    assert f"resuming from {before}" in caplog.text
    assert older.exists()
    assert newest.exists()


@pytest.mark.parametrize("other", ["place", "run"])
def test_a_checkpoint_under_a_wrong_name_is_not_in_the_mean(
    small: Small, small_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, other: str
) -> None:
    whole = run_here(small(), small_data, tmp_path)
    before, older, _ = sorted((tmp_path / "checkpoints").glob("*_batch_000000.pt"))[-3:]
    if other == "run":
        record = torch.load(older)
        torch.save({**record, "inputs": {"feats.sum": "another"}}, older)
    else:
        older.write_bytes(before.read_bytes())
    assert_same(whole, run_here(small(), small_data, tmp_path))
    assert "the end of epoch 2 is needed for the mean and is trained again" in caplog.text


def test_checkpoints_of_another_config_are_kept_even_if_the_mean_would_miss_some(
    small: Small, small_data: Path, tmp_path: Path
) -> None:
    run_here(small(train={"epochs": 6}), small_data, tmp_path)
    before = {path.name: path.read_bytes() for path in (tmp_path / "checkpoints").iterdir()}
    assert "epoch_0002_batch_000000.pt" not in before, "the mean of the shorter run is over epochs 2 and 3"
    run_here(small(train={"epochs": 3}), small_data, tmp_path)
    assert {path.name: path.read_bytes() for path in (tmp_path / "checkpoints.1").iterdir()} == before


def test_a_missing_epoch_end_is_found_before_a_checkpoint_within_the_next(
    small: Small, small_data: Path, tmp_path: Path
) -> None:
    run_here(small(), small_data, tmp_path)
    store = CheckpointStore(tmp_path / "checkpoints", 3)
    before, older, newest = store.epoch_ends()[-3:]
    newest.rename(older.with_name("epoch_0002_batch_000001.pt"))
    older.unlink()
    assert store.drop_after_gap(range(2, 4), {})
    assert store.paths() == [before]
    assert not store.drop_after_gap(range(2, 4), {})


def test_the_mean_needs_all_its_epochs(small: Small, small_data: Path, tmp_path: Path) -> None:
    run_here(small(), small_data, tmp_path)
    store = CheckpointStore(tmp_path / "checkpoints", 3)
    store.epoch_ends()[-2].write_bytes(b"cut")
    with pytest.raises(InputError, match="only 1 can be read"):
        store.average(2)


def test_checkpoints_of_another_network_version_are_an_error(small: Small, small_data: Path, tmp_path: Path) -> None:
    run_here(small(), small_data, tmp_path)
    for path in (tmp_path / "checkpoints").glob("*.pt"):
        record = torch.load(path)
        del record["learner"]["head.weight"]
        torch.save(record, path)
    with pytest.raises(
        InputError, match="checkpoints: the checkpoints do not fit the network that this version builds"
    ):
        run_here(small(), small_data, tmp_path)


def test_checkpoints_of_another_config_are_kept_but_not_resumed(small: Small, small_data: Path, tmp_path: Path) -> None:
    run_here(small(train={"epochs": 1}), small_data, tmp_path / "a")
    changed = run_here(small(seed=5), small_data, tmp_path / "a")
    assert_same(changed, run_here(small(seed=5), small_data, tmp_path / "b"))
    assert list((tmp_path / "a" / "checkpoints.1").glob("*.pt"))


def test_checkpoints_of_other_inputs_are_not_resumed(small: Small, small_data: Path, tmp_path: Path) -> None:
    experiment = small(train={"epochs": 1})
    for digest, expected in (("a", 1), ("a", 1), ("b", 2)):
        dataset = CropDataset(small_data, experiment.crop, 0)
        Trainer(build_learner(experiment, dataset), dataset, experiment, tmp_path, {"teacher": digest}).run()
        assert len(list(tmp_path.glob("checkpoints*"))) == expected


def test_options_without_effect_on_the_result_may_change_between_runs(
    small: Small, small_data: Path, tmp_path: Path
) -> None:
    whole = run_here(small(), small_data, tmp_path / "a")
    assert_same(whole, run_here(small(runtime={"workers": 2, "checkpoint_batches": 0}), small_data, tmp_path / "b"))


@pytest.mark.parametrize(("log_every", "checkpoint_batches"), [(1, 1), (2, 3), (3, 2), (0, 0)])
def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_utterances(
    small: Small, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log_every: int,
    checkpoint_batches: int,
) -> None:  # fmt: skip
    """It names the first such batch, although later losses are not finite either, and saves nothing of it."""
    read, batches = CropDataset.__getitem__, []

    def poisoned(self: CropDataset, request: object) -> object:
        batch = read(self, request)
        batches.append(set(batch.indices.tolist()))
        batch.step[(batch.indices == 17) | (batch.indices == 3)] = np.nan
        return batch

    monkeypatch.setattr(CropDataset, "__getitem__", poisoned)
    with pytest.raises(InputError) as caught:
        run_here(
            small(runtime={"log_every": log_every, "checkpoint_batches": checkpoint_batches}), small_data, tmp_path
        )
    first = next(number for number, batch in enumerate(batches) if batch & {17, 3})
    named = " ".join({3: "s0-3", 17: "s2-1"}[index] for index in sorted(batches[first] & {3, 17}))
    assert f"not finite at epoch 1, batch {first + 1} (class nan); utterances with" in str(caught.value)
    assert f" {named}; the last checkpoint" in str(caught.value)
    saved = [torch.load(path) for path in (tmp_path / "checkpoints").glob("*.pt")]
    assert all(record["batch"] <= first for record in saved)
    assert not (tmp_path / "final.pt").exists()


@pytest.mark.parametrize("precision", ["bf16"])
def test_training_works_with_autocast(small: Small, small_data: Path, tmp_path: Path, precision: str) -> None:
    run_here(small(train={"precision": precision, "epochs": 6}), small_data, tmp_path)
    ends = metrics(tmp_path, "done")
    assert ends[-1]["loss"] < ends[0]["loss"]


def test_sgd_and_gradient_clipping(small: Small, small_data: Path, tmp_path: Path) -> None:
    changes = {"optimiser": {"name": "sgd"}, "learning_rate": {"peak": 0.05, "warmup_epochs": 1}, "clip_norm": 1.0}
    run_here(small(train={**changes, "epochs": 8}), small_data, tmp_path)
    ends = metrics(tmp_path, "done")
    assert ends[-1]["accuracy"] > ends[0]["accuracy"]


def test_a_batch_may_be_larger_than_an_epoch(small: Small, small_data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="batch_size is 64, more than the 40 crops"):
        run_here(small(train={"batch_size": 64}), small_data, tmp_path)
