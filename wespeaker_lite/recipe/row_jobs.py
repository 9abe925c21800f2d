"""Run the experiments of rows.tsv, several at a time, until all are done or the time is up."""

import contextlib
import json
import logging
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

log = logging.getLogger(__name__)

PATIENCE = 60  # seconds for an experiment to write its checkpoint, after the request to stop
# Signals to an experiment that must stop, and the seconds to wait after each. A second TERM makes run.pl kill its jobs.
STOPPING = ((signal.SIGTERM, PATIENCE), (signal.SIGTERM, 10), (signal.SIGKILL, 10))


@dataclass(frozen=True)
class Job:
    """An experiment to run: name, folder, command, and the names of experiments that it may train first."""

    name: str
    folder: Path
    command: Sequence[str]
    before: frozenset[str] = frozenset()

    @property
    def log(self) -> Path:
        """The output of the command."""
        return self.folder / "log/row.log"


@dataclass
class Outcome:
    """How a job ended: `whole`, `failed`, `stopped` or `not begun`, with its duration in seconds and its exit code."""

    job: Job
    state: str = "not begun"
    seconds: float = 0.0
    code: int | None = None


@dataclass
class _Running:
    """A job's process, and a pipe that is readable when the process and all its children have ended."""

    outcome: Outcome
    process: subprocess.Popen
    pipe: int
    slot: int
    started: float = field(default_factory=time.monotonic)


class _Signals:
    """A context in which signals that ask this program to stop are stored in `number`."""

    NAMES = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

    def __init__(self) -> None:
        self.number: int | None = None

    def __enter__(self) -> "_Signals":
        self._before = {name: signal.signal(name, self._note) for name in self.NAMES}
        return self

    def __exit__(self, *_: object) -> None:
        for name, handler in self._before.items():
            signal.signal(name, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number


def environments(parallel: int, one_gpu: bool) -> list[dict[str, str]]:
    """The environments of `parallel` experiments: each has its share of the cores, or a GPU that it may share."""
    if parallel == 1:
        return [dict(os.environ)]
    if one_gpu:
        gpus = _gpus()
        names = [{"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} if gpus else {} for slot in range(parallel)]
        return [{**os.environ, **name} for name in names]
    threads = str(max(1, len(os.sched_getaffinity(0)) // parallel))
    return [{"OMP_NUM_THREADS": threads, **os.environ} for _ in range(parallel)]


def _gpus() -> list[str]:
    """The GPUs in CUDA_VISIBLE_DEVICES, else all GPUs. A GPU with MIG instances is replaced by these."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name.strip() for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name.strip()]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return []
    found: list[str] = []
    for kind, name in re.findall(r"UUID: +((?:GPU|MIG)-)([^)]+)\)", listed):
        if kind == "MIG-" and found and found[-1].startswith("GPU-"):
            found.pop()
        found.append(kind + name)
    return found


def run_jobs(
    jobs: Sequence[Job], places: Sequence[Mapping[str, str]], minutes: float = 0.0, cwd: str | Path = "."
) -> tuple[list[Outcome], int | None]:
    """Run jobs in order. `places` are the environments, and their number is that of parallel jobs.

    A job waits while another one trains an experiment that it needs, so that a shared teacher is trained once. After
    `minutes` (0: no limit), or on a signal, running jobs get SIGTERM, on which training writes a checkpoint. A failed
    job does not stop the others.

    Returns:
        The outcome of each job, and the signal that stopped this function, if any.
    """
    outcomes = [Outcome(job) for job in jobs]
    waiting, running = list(outcomes), []
    deadline = time.monotonic() + 60 * minutes if minutes else float("inf")
    with _Signals() as signals:
        while waiting or running:
            if signals.number or time.monotonic() >= deadline:
                log.info("%s: asking %d rows to stop", _cause(signals.number), len(running))
                _stop(running)
                break
            free = sorted(set(range(len(places))) - {one.slot for one in running})
            for slot in free:
                outcome = _next(waiting, running)
                if outcome is not None:
                    waiting.remove(outcome)
                    running.append(_start(outcome, slot, places[slot], cwd))
            for ended in _wait(running, min(1.0, max(0.0, deadline - time.monotonic()))):
                running.remove(ended)
                _settle(ended, asked=False)
        return outcomes, signals.number


def _cause(number: int | None) -> str:
    return signal.Signals(number).name if number else "the time is up"


def _next(waiting: Sequence[Outcome], running: Sequence[_Running]) -> Outcome | None:
    """The first waiting job whose untrained experiments are not in training by a running job."""
    busy = {name for one in running for name in (one.outcome.job.name, *one.outcome.job.before)}
    for outcome in waiting:
        job = outcome.job
        missing = {name for name in (job.name, *job.before) if not (job.folder.parent / name / "final.pt").exists()}
        if not missing & busy:
            return outcome
    return None


def _start(outcome: Outcome, slot: int, environment: Mapping[str, str], cwd: str | Path) -> _Running:
    job = outcome.job
    job.log.parent.mkdir(parents=True, exist_ok=True)
    log.info("%s: started, log in %s", job.name, job.log)
    ours, theirs = os.pipe()
    with open(job.log, "ab") as output:
        process = subprocess.Popen(
            job.command, cwd=cwd, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True, pass_fds=(theirs,),
        )  # fmt: skip
    os.close(theirs)
    return _Running(outcome, process, ours, slot)


def _wait(running: Sequence[_Running], seconds: float) -> list[_Running]:
    """Wait at most `seconds`; return the jobs whose processes have all ended."""
    ready, _, _ = select.select([one.pipe for one in running], [], [], seconds)
    return [one for one in running if one.pipe in ready]


def _stop(running: list[_Running]) -> None:
    """Ask all running jobs to stop, and kill those that do not."""
    left = list(running)
    for number, patience in STOPPING:
        for one in left:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(one.process.pid, number)
        until = time.monotonic() + patience
        while left and time.monotonic() < until:
            for ended in _wait(left, min(1.0, max(0.0, until - time.monotonic()))):
                left.remove(ended)
                _settle(ended, asked=True)
    for one in left:
        log.warning("%s: processes of it still run; see %s", one.outcome.job.name, one.outcome.job.log)
        one.outcome.state = "stopped"


def _settle(ended: _Running, asked: bool) -> None:
    os.close(ended.pipe)
    outcome, code = ended.outcome, ended.process.wait()
    outcome.code, outcome.seconds = code, time.monotonic() - ended.started
    outcome.state = "whole" if code == 0 else "stopped" if asked else "failed"
    log.info("%s: %s after %.0f s", outcome.job.name, outcome.state, outcome.seconds)


def progress(folder: str | Path) -> str:
    """The progress of training: `trained`, `epoch N` for the last finished epoch, or an empty string."""
    folder = Path(folder)
    if (folder / "final.pt").exists():
        return "trained"
    try:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return ""
    done = [line for line in lines if '"done"' in line and line.endswith("}")]
    return f"epoch {json.loads(done[-1])['epoch']}" if done else "epoch 0"
