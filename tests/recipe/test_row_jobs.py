"""Several rows at a time: order, teachers, failures and the time limit, with a fake run.sh."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wespeaker_lite.recipe import row_jobs
from wespeaker_lite.recipe.row_jobs import Job, environments, progress, run_jobs

# A fake run.sh that records its start and end. Like a stage, its shell ends at once on TERM. The training is in its own
# process group, as with run.pl, and needs half a second to write its checkpoint.
STAND_IN = r"""
echo "+ $1 $OMP_NUM_THREADS" >> events
python3 -c '
import os, signal, sys, time
os.setpgid(0, 0)
def stop(*_):
    time.sleep(0.5)
    print("- checkpoint", sys.argv[1], file=open("events", "a"))
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
open(f"ready_{sys.argv[1]}", "w").close()
time.sleep(float(sys.argv[2]))
' "$1" "$2" &
training=$!
trap 'kill $training; exit 2' TERM
wait $training || exit 1
[ "$3" = 0 ] || exit "$3"
echo "- $1" >> events
touch "exp/$1/final.pt"
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stand_in.sh").write_text(STAND_IN)
    return tmp_path


def job(name: str, seconds: float = 0.0, code: int = 0, before: tuple[str, ...] = ()) -> Job:
    command = ["bash", "stand_in.sh", name, str(seconds), str(code)]
    return Job(name, Path("exp").resolve() / name, command, frozenset(before))


def events(place: Path) -> list[str]:
    return [" ".join(line.split()[:3]) for line in (place / "events").read_text().splitlines()]


def two() -> list[dict[str, str]]:
    return [{**os.environ, "OMP_NUM_THREADS": slot} for slot in "12"]


def test_a_failed_row_stops_no_other_and_leaves_its_log(place: Path) -> None:
    outcomes, number = run_jobs([job("a", code=5), job("b"), job("c")], two())
    assert [(one.job.name, one.state, one.code) for one in outcomes] == [
        ("a", "failed", 5), ("b", "whole", 0), ("c", "whole", 0)
    ]  # fmt: skip
    assert number is None
    assert outcomes[0].job.log.exists()


def test_rows_run_in_parallel_but_a_teacher_is_trained_once(place: Path) -> None:
    """b and c need the same teacher, which b trains: c waits for b, and d runs before c."""
    jobs = [job("b", 1.0, before=("teacher",)), job("c", before=("teacher",)), job("d")]
    outcomes, _ = run_jobs(jobs, two())
    assert [one.state for one in outcomes] == ["whole"] * 3
    found = events(place)
    assert found.index("- d") < found.index("- b") < found.index("+ c 1")


def test_at_the_time_limit_training_writes_its_checkpoint(place: Path) -> None:
    outcomes, number = run_jobs([job("a", 60), job("b", 60), job("c")], two(), minutes=1.5 / 60)
    assert [one.state for one in outcomes] == ["stopped", "stopped", "not begun"]
    assert number is None
    # Processes that outlive the shell of their row have written this, so the program has waited for them.
    assert sorted(line for line in events(place) if "checkpoint" in line) == ["- checkpoint a", "- checkpoint b"]


def test_a_row_that_does_not_stop_is_killed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_jobs, "STOPPING", ((signal.SIGTERM, 0.3), (signal.SIGKILL, 10)))
    deaf = Job("deaf", Path("exp").resolve() / "deaf", ["bash", "-c", "trap '' TERM; while :; do sleep 0.2; done"])
    started = time.monotonic()
    outcomes, _ = run_jobs([deaf], two()[:1], minutes=0.3 / 60)
    assert outcomes[0].state == "stopped"
    assert outcomes[0].code == -signal.SIGKILL
    assert time.monotonic() - started < 8


def test_a_signal_stops_the_rows_too(place: Path, repository: Path) -> None:
    program = """
import os
from pathlib import Path
from wespeaker_lite.recipe.row_jobs import Job, run_jobs
outcomes, number = run_jobs([Job("a", Path("exp/a"), ["bash", "stand_in.sh", "a", "60", "0"])], [dict(os.environ)])
print(outcomes[0].state, number)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(repository)}, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    until = time.monotonic() + 60
    while not (place / "ready_a").exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60)[0] == "stopped 15\n"
    assert "- checkpoint a" in events(place)


def test_rows_on_one_gpu_share_it_and_rows_on_cpus_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gpus(parallel: int) -> list[str | None]:
        return [one.get("CUDA_VISIBLE_DEVICES") for one in environments(parallel, one_gpu=True)]

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (tmp_path / "nvidia-smi").write_text(
        '#!/bin/sh\necho "GPU 0: NVIDIA H100 (UUID: GPU-aa)"\necho "GPU 1: NVIDIA A100 (UUID: GPU-bb)"\n'
        'echo "  MIG 1g.10gb     Device  0: (UUID: MIG-cc)"\n'
    )
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert gpus(3) == ["GPU-aa", "MIG-cc", "GPU-aa"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, 1")
    assert gpus(3) == ["3", "1", "3"]
    assert gpus(1) == ["3, 1"]  # run.pl selects the GPU
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    assert [one["OMP_NUM_THREADS"] for one in environments(3, one_gpu=False)] == ["2"] * 3


def test_progress_of_a_training(tmp_path: Path) -> None:
    assert progress(tmp_path) == ""
    (tmp_path / "metrics.jsonl").write_text('{"step": 5, "epoch": 1, "event": "done"}\n{"step": 7, "epoch": 2, "ev')
    assert progress(tmp_path) == "epoch 1"
    (tmp_path / "final.pt").touch()
    assert progress(tmp_path) == "trained"
