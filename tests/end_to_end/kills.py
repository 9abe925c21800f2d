"""SIGKILL at random moments, to all that a run has started or to one process, and what must come out all the same."""

import contextlib
import hashlib
import os
import random
import signal
import subprocess
from pathlib import Path

from tests.end_to_end.checkout import PATIENCE, Checkout

# What tells of times: logs and the report that shows them, the list of audio with its times of change. Stamps, what
# they have seen, and checkpoints have digests of these.
TIMED = (
    "*.log", "metrics.jsonl", "report/report.html", "report/training.png", "audio.list", "*.stamp", "*.seen", ".lock",
    "checkpoints/*",
)  # fmt: skip


def products(checkout: Checkout) -> dict[str, str]:
    """All files that the recipe leaves, by name, with their SHA-256."""
    files = sorted(path for name in ("data", "exp") for path in (checkout.folder / name).rglob("*") if path.is_file())
    return {
        str(path.relative_to(checkout.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if not any(path.match(pattern) for pattern in TIMED)
    }


def run_and_kill(checkout: Checkout, chance: random.Random, seconds: float, *options: str) -> tuple[str, int]:
    """Run the recipe; at a random moment of so many seconds kill all of it, or one process, and wait for its end.

    Returns what was killed, and the exit code. What a killed parent leaves behind may still run.
    """
    run = checkout.start(*options, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    moment = chance.uniform(0, seconds)
    with contextlib.suppress(subprocess.TimeoutExpired):
        run.wait(moment)
    alive = processes_of(run.pid)
    if not alive:
        return f"after {moment:.1f} s: it had ended", run.wait()
    if chance.random() < 0.5:
        told = "all"
        while victims := processes_of(run.pid):  # more may have come meanwhile
            kill(*victims)
    else:
        victim = chance.choice(sorted(alive))
        told = alive[victim]
        kill(victim)
    return f"after {moment:.1f} s: {told}", run.wait(PATIENCE)


def kill(*processes: int) -> None:
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def processes_of(session: int) -> dict[int, str]:
    """The processes of a session that are alive, with their commands."""
    found = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, theirs = status.read_text().rpartition(")")[2].split()[:4]
            if int(theirs) == session and state != "Z":
                words = (status.parent / "cmdline").read_bytes().decode(errors="replace").split("\0")
                found[int(status.parent.name)] = " ".join(words)[:100]
    return found
