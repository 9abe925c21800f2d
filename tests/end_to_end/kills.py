"""SIGKILL at random moments, to all processes of a run or to one, and the outputs that must still be the same."""

import contextlib
import hashlib
import os
import random
import signal
import subprocess
from pathlib import Path

from tests.end_to_end.checkout import PATIENCE, Checkout

# Files that contain times: logs, the report, and the list of audio with modification times. Stamps, their caches and
# checkpoints have digests of these files.
TIMED = (
    "*.log", "metrics.jsonl", "report/report.html", "report/training.png", "audio.list", "*.stamp", "*.seen", ".lock",
    "checkpoints/*",
)  # fmt: skip


def products(checkout: Checkout) -> dict[str, str]:
    """The SHA-256 of all outputs of the recipe, by name."""
    files = sorted(path for name in ("data", "exp") for path in (checkout.folder / name).rglob("*") if path.is_file())
    return {
        str(path.relative_to(checkout.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if not any(path.match(pattern) for pattern in TIMED)
    }


def run_and_kill(checkout: Checkout, chance: random.Random, seconds: float, *options: str) -> tuple[str, int]:
    """Run the recipe, kill all of it or one process at a random moment within some seconds, and wait for its end.

    Returns what was killed, and the exit code. Children of a killed process may still run.
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
        while victims := processes_of(run.pid):  # new processes may have started
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
    """The living processes of a session, with their commands."""
    found = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, theirs = status.read_text().rpartition(")")[2].split()[:4]
            if int(theirs) == session and state != "Z":
                words = (status.parent / "cmdline").read_bytes().decode(errors="replace").split("\0")
                found[int(status.parent.name)] = " ".join(words)[:100]
    return found
