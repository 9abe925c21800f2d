"""A copy of the repository with small confs, in which tests run the recipe as a user does."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

CONF = "model: {name: bc_cmt, channels: [8, 8], depth: [1, 1], strides: [2, 2], embed_dim: 16}\n"
STUDENT = (
    CONF
    + """\
distill:
  teacher: conf/teacher.yaml
  terms:
    - {name: label, weight: 0.5}
    - {name: embedding, weight: 1.0}
    - {name: attention, weight: 1.0}
"""
)
OVERRIDES = """\
crop: {frames: 60}
train:
  epochs: 2
  batch_size: 8
  average_last: 1
  optimiser: {name: adamw}
  learning_rate: {name: one_cycle, peak: 0.003, warmup_epochs: 1}
runtime: {device: cpu, threads: 1}
"""
SIZE = {"MINI_TRAIN_SPEAKERS": "6", "MINI_TEST_SPEAKERS": "12", "MINI_SESSIONS": "2", "MINI_TRAIN_UTTERANCES": "2",
        "MINI_TEST_UTTERANCES": "1", "OMP_NUM_THREADS": "1"}  # fmt: skip
PATIENCE = 600  # seconds; a run that takes longer hangs


class Checkout:
    """A copy of the repository with small confs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.exp = folder / "exp/mini/student"
        self.environment = {**os.environ, **SIZE}

    def start(self, *options: str, **popen: object) -> subprocess.Popen:
        command = ["bash", "run.sh", "--config", "conf/student.yaml", *options]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment, **{"stdout": pipe, "text": True} | popen
        )

    def run(
        self, *options: str, script: str = "run.sh", under: Sequence[str] = (), **environment: str
    ) -> subprocess.CompletedProcess:
        """Run a script to its end. `under` is a command prefix, for example to drop privileges."""
        command = [*under, "bash", script, "--config", "conf/student.yaml", *options]
        environment = {**self.environment, **environment}
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE
        )

    def good(self, *options: str, **more: str) -> str:
        done = self.run(*options, **more)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def bad(self, *options: str, **more: str) -> str:
        done = self.run(*options, **more)
        assert done.returncode != 0, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr


def make_checkout(repository: Path, folder: Path) -> Checkout:
    """Copy what the recipe needs, and add a small student and its teacher."""
    left_out = shutil.ignore_patterns(".git", ".venv", "data", "exp", "tests", "__pycache__", ".*_cache")
    shutil.copytree(
        repository,
        folder,
        ignore=lambda where, names: (
            left_out(where, names) - ({"data"} if Path(where).name == "wespeaker_lite" else set())
        ),
    )
    (folder / "conf/teacher.yaml").write_text(CONF)
    (folder / "conf/student.yaml").write_text(STUDENT)
    (folder / "egs/mini/overrides.yaml").write_text(OVERRIDES)
    return Checkout(folder)
