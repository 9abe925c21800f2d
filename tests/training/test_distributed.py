"""Several processes give the gradients, statistics and losses of one. If one dies, all end."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.recipe import resolved
from wespeaker_lite.recipe.experiment import Experiment

Small = Callable[..., Experiment]
Make = Callable[..., "Run"]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone")
TRAIN = ("-m", "wespeaker_lite.bin.train")


def environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}


def test_gradients_and_statistics_equal_those_of_the_whole_batch(repository: Path) -> None:
    """In float64, against one process: ECAPA-TDNN, ResNet and BC-CMT with its own norms."""
    command = (*TORCHRUN, "--nproc-per-node", "2", "tests/training/ranks.py")
    done = subprocess.run(
        command, cwd=repository, env=environment(repository), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("is content") == 2
    assert "noticed: rank 1 has other weights than rank 0" in done.stdout


class Run:
    """A small training in its own folder, with one or more processes."""

    def __init__(self, repository: Path, data: Path, out: Path, experiment: Experiment) -> None:
        self.repository, self.out = repository, out
        resolved.write(out / "config.yaml", to_mapping(experiment))
        self.arguments = (*TRAIN, "--config", str(out / "config.yaml"), "--data", str(data), "--out", str(out))

    def start(self, processes: int, *options: str) -> subprocess.Popen:
        alone = (sys.executable, *self.arguments)
        together = (*TORCHRUN, "--nproc-per-node", str(processes), *options, *self.arguments)
        return self.popen(alone if processes == 1 else together)

    def popen(self, command: tuple[str, ...]) -> subprocess.Popen:
        return subprocess.Popen(
            command, cwd=self.repository, env=environment(self.repository), stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def finish(self, processes: int, *options: str) -> str:
        process = self.start(processes, *options)
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said[-3000:]
        return said

    def epochs(self) -> list[dict[str, float]]:
        lines = [json.loads(line) for line in (self.out / "metrics.jsonl").read_text().splitlines()]
        return [line for line in lines if line["event"] == "done"]


@pytest.fixture(scope="module")
def make(small: Small, small_data: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """make(NAME, **changes): a run of three epochs of five batches."""
    slow = {"optimiser": {"name": "sgd"}, "learning_rate": {"name": "constant", "peak": 0.001, "final": 0.001}}
    folder = tmp_path_factory.mktemp("runs")
    return lambda name, **train: Run(repository, small_data, folder / name, small(train={**slow, **train}))


@pytest.fixture(scope="module")
def together(make: Make) -> Run:
    """An uninterrupted training with two processes."""
    run = make("together")
    said = run.finish(2)
    assert said.count("epoch 3/3 done") == 1  # one of them speaks
    return run


def test_two_processes_give_the_result_of_one(make: Make, together: Run) -> None:
    alone = make("alone")
    alone.finish(1)
    # Sums in another order differ in the last bit, and training multiplies that; ranks.py compares without it.
    for tolerance, ours, theirs in zip((1e-4, 1e-3, 1e-2), together.epochs(), alone.epochs(), strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=tolerance)
        assert ours["accuracy"] == pytest.approx(theirs["accuracy"], abs=0.03)
    ours, theirs = (torch.load(run.out / "final.pt")["model"] for run in (together, alone))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert (ours[name] - value).float().norm() <= 0.02 * value.float().norm() + 1e-3, name


def test_a_batch_that_cannot_be_divided_is_an_error(make: Make) -> None:
    process = make("uneven", batch_size=7).start(2)
    said, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "a batch of 7 cannot be shared evenly by 2 processes" in said


def test_a_killed_rank_ends_them_all(make: Make) -> None:
    ended = make("ended")
    process = ended.start(2)
    assert "SIGKILL" in said_after_a_kill(ended, process)
    assert process.returncode != 0
    assert not (ended.out / "final.pt").exists()


def test_a_stopped_rank_is_noticed_and_ends_them_all(make: Make, small: Small) -> None:
    stopped = make("halted", epochs=200)
    patient = small(train={"epochs": 200}, runtime={"patience": 0.2})
    resolved.write(stopped.out / "config.yaml", to_mapping(patient))
    process = stopped.start(2)
    wait_for_checkpoint(stopped, process)
    second, said = second_rank(process), ""
    os.kill(second, signal.SIGSTOP)
    for line in process.stdout:
        said += line
        if "did not answer" in line:
            os.kill(second, signal.SIGKILL)  # as torchrun does half a minute later
    assert process.wait() != 0
    assert "rank 0 of 2 has had no answer from the others for 6 seconds; has one of them stopped" in said
    assert "train: rank 0 of 2: the others did not answer for 0.2 minutes (runtime.patience)" in said


def test_after_a_restart_the_result_is_the_same(make: Make, together: Run) -> None:
    restarted = make("restarted")
    process = restarted.start(2, "--max-restarts", "1")
    said = said_after_a_kill(restarted, process)
    assert process.returncode == 0, said[-3000:]
    assert "resuming after epoch" in said
    ours, expected = (torch.load(run.out / "final.pt")["model"] for run in (restarted, together))
    assert all(torch.equal(ours[name], value) for name, value in expected.items())


def test_a_signal_to_torchrun_stops_all_ranks_after_the_same_batch(make: Make) -> None:
    stopped = make("stopped", epochs=200)
    process = stopped.popen(("bash", "tools/launch.sh", "1", "2", *stopped.arguments))
    wait_for_checkpoint(stopped, process)
    process.send_signal(signal.SIGUSR1)
    said = process.communicate(timeout=300)[0]
    assert process.returncode != 0
    places = re.findall(r"stopping; a checkpoint is written after (epoch \d+, batch \d+)", said)
    assert len(places) == 2
    assert len(set(places)) == 1
    epoch, batch = re.findall(r"\d+", places[0])
    assert (stopped.out / f"checkpoints/epoch_{int(epoch):04d}_batch_{int(batch):06d}.pt").exists()


def wait_for_checkpoint(run: Run, process: subprocess.Popen) -> None:
    while not list(run.out.glob("checkpoints/*.pt")):
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)


def second_rank(torchrun: subprocess.Popen) -> int:
    children = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
    return max(map(int, children))


def said_after_a_kill(run: Run, process: subprocess.Popen) -> str:
    """Kill the second rank once there is a checkpoint, and return the output of all ranks."""
    wait_for_checkpoint(run, process)
    os.kill(second_rank(process), signal.SIGKILL)
    return process.communicate(timeout=300)[0]
