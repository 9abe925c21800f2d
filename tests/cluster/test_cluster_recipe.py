"""The mini recipe on a real Slurm and a real Grid Engine, and training on two nodes of Slurm."""

import contextlib
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from tests.cluster.schedulers import Cluster, wait_until
from tests.end_to_end.checkout import Checkout, make_checkout

# A node has only two CPUs and 4 GB.
OPTIONS = ("--nj", "2", "--set", "train.optimiser.name=sgd")


@pytest.fixture(scope="module")
def checkout(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A copy of the repository, after stages 0 and 1, which start no jobs."""
    made = make_checkout(repository, tmp_path_factory.mktemp("cluster") / "checkout")
    made.good("--stop-stage", "1")
    return made


def good(checkout: Checkout, cluster: Cluster, *options: str) -> str:
    own = {name: value for name, value in cluster.environment.items() if name.startswith(("SLURM_", "SGE_"))}
    return checkout.good("--cmd", f"tools/{cluster.runner.name} --mem 1900M", *OPTIONS, *options, **own)


def weights(checkout: Checkout, name: str) -> dict[str, torch.Tensor]:
    return torch.load(checkout.folder / f"exp/mini/{name}/final.pt")["model"]


def test_all_stages(cluster: Cluster, checkout: Checkout) -> None:
    """Slurm trains teacher and student on two nodes. Grid Engine then uses the same teacher."""
    (checkout.folder / "data/mini/test/.fbank.stamp").unlink(missing_ok=True)
    name = f"student_{cluster.runner.stem}"
    nodes = ("--nodes", "2") if cluster.is_slurm else ()
    good(checkout, cluster, "--stage", "1", "--stop-stage", "6", "--name", name, *nodes)
    log = (checkout.folder / f"exp/mini/{name}/log/train.log").read_text()
    assert "# Ended (code 0)" in log
    assert log.count("epoch 2/2 done") == 1  # only one rank prints
    assert ("2 processes share each batch" in log) == cluster.is_slurm
    assert (checkout.folder / "data/mini/test/log/q/make_fbank.sh").exists()
    assert (checkout.folder / f"exp/mini/{name}/results.json").exists()


def test_two_nodes_give_the_result_of_one_process(checkout: Checkout) -> None:
    names = ("student_slurm", "student_queue")
    if not all((checkout.folder / f"exp/mini/{name}/final.pt").exists() for name in names):
        pytest.skip("the test before, on both schedulers, has not left its students")
    ours, theirs = (weights(checkout, name) for name in names)
    for name, value in theirs.items():
        assert (ours[name] - value).float().norm() <= 0.02 * value.float().norm() + 1e-3, name


def train(checkout: Checkout, slurm: Cluster, name: str, *options: str) -> str:
    changes = ("--set", "runtime.checkpoint_batches=1", "--set", "train.epochs=10")
    stages = ("--stage", "2", "--stop-stage", "4", "--config", "conf/teacher.yaml")
    good(checkout, slurm, *stages, *changes, "--name", name, *options)
    return (checkout.folder / f"exp/mini/{name}/log/train.log").read_text()


def kill_a_rank(folder: Path, checkpoints: Path) -> None:
    """Kill the second rank once there is a checkpoint. Its DataLoader workers look the same, but started later."""
    wait_until(lambda: list(checkpoints.glob("*.pt")), 300)
    ranks = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "cwd").readlink() == folder and b"\0RANK=1\0" in (process / "environ").read_bytes():
                ranks.append(int(process.name))
    os.kill(min(ranks), signal.SIGKILL)


@pytest.mark.recipe
def test_killed_rank_on_one_of_two_nodes(slurm: Cluster, checkout: Checkout, request: pytest.FixtureRequest) -> None:
    """Both nodes start again from the last checkpoint and give the same result."""
    if "recipe" not in request.config.option.markexpr:
        pytest.skip("two more trainings on two nodes: run by `pytest tests/cluster -m recipe`")
    train(checkout, slurm, "uninterrupted", "--nodes", "2")
    with ThreadPoolExecutor() as pool:
        killed = pool.submit(train, checkout, slurm, "killed", "--nodes", "2")
        kill_a_rank(checkout.folder, checkout.folder / "exp/mini/killed/checkpoints")
        assert "failed (exitcode: -9)" in killed.result()
    assert "resuming after epoch" in killed.result()
    ours, expected = weights(checkout, "killed"), weights(checkout, "uninterrupted")
    assert all(torch.equal(ours[name], value) for name, value in expected.items())


def test_several_nodes_without_slurm(checkout: Checkout) -> None:
    said = checkout.bad("--nodes", "2", "--cmd", "tools/run.pl")
    assert "--nodes 2 needs --cmd tools/slurm.pl" in said
    log = checkout.folder / "exp/log"
    launch = ["tools/run.pl", str(log), "tools/launch.sh", "2", "1", "-m", "wespeaker_lite.bin.train"]
    assert subprocess.run(launch, cwd=checkout.folder, check=False, capture_output=True).returncode == 1
    assert "this job has 1 nodes of Slurm, not 2" in log.read_text()
