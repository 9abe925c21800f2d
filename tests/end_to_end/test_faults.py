"""Faults of real machines, applied to the recipe: docs/faults.md lists them.

The tests of arks, tables, stamps, checkpoints and runners, and test_recipe.py, cover other faults of that table.
"""

import importlib.util
import os
import random
import re
import shutil
import stat
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.end_to_end.checkout import Checkout, make_checkout
from tests.end_to_end.kills import products, run_and_kill

# Runs the jobs, then hides their outputs for a second and a half, as a file server may.
LATE = """\
#!/usr/bin/env bash
tools/run.pl "$@" || exit
folder=exp/mini/student/embeddings/test
mv "$folder/parts" "$folder/late"
(sleep 1.5; mv "$folder/late" "$folder/parts") &
"""

# Lists one file of several, then fails, as on a folder that cannot be read.
FIND = """\
#!/usr/bin/env bash
if [[ $* != *-type\\ f* && $* != *.ark* ]]; then exec {find} "$@"; fi
{find} "$@" | head -n 1
exit 1
"""


@pytest.fixture(scope="module")
def checkout(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A copy of the repository in which no stage has run."""
    return make_checkout(repository, tmp_path_factory.mktemp("faults") / "checkout")


def only(stage: int) -> tuple[str, ...]:
    return ("--stage", str(stage), "--stop-stage", str(stage))


@pytest.fixture(scope="module")
def seconds(checkout: Checkout) -> list[float]:
    """The time of each stage in an uninterrupted run."""
    ends = [time.monotonic()]
    for stage in range(9 if importlib.util.find_spec("onnxruntime") else 8):  # stage 8 needs an extra
        checkout.good(*only(stage))
        ends.append(time.monotonic())
    return [after - before for before, after in pairwise(ends)]


@pytest.fixture(scope="module")
def uninterrupted(checkout: Checkout, seconds: list[float]) -> dict[str, str]:
    """The outputs of an uninterrupted run."""
    return products(checkout)


def test_sigkill_in_every_stage_then_the_same_command(
    checkout: Checkout, seconds: list[float], uninterrupted: dict[str, str]
) -> None:
    for folder in ("data", "exp"):
        shutil.rmtree(checkout.folder / folder)
    seed = time.time_ns()
    chance, told = random.Random(seed), [f"seed {seed}"]
    for stage, its_seconds in enumerate(seconds):
        what, code = run_and_kill(checkout, chance, its_seconds, *only(stage))
        told.append(f"stage {stage} {what}, exit code {code}")
        checkout.good(*only(stage))
    assert products(checkout) == uninterrupted, told


def test_corrupt_stamps_make_their_stages_run_again(checkout: Checkout, uninterrupted: dict[str, str]) -> None:
    garbage = {"embeddings/test/.embed.stamp": b"", ".score.stamp": b'{"inputs": 3}', ".report.stamp": b"\xff\0"}
    for name, content in garbage.items():
        (checkout.exp / name).write_bytes(content)
    assert checkout.good("--stage", "4").count("cannot be read; its stage is done again") == 3
    assert products(checkout) == uninterrupted


def test_wrong_clocks_make_no_stage_run_again(checkout: Checkout, uninterrupted: dict[str, str]) -> None:
    """The clock was ahead and was set back: no stage runs again, and a change is still noticed."""
    files = [path for name in ("data/mini/train", "data/mini/trials", "exp") for path in walk(checkout.folder / name)]
    for path in files:
        os.utime(path, (4e9, 4e9))
    assert " logs in " not in checkout.good()
    trials = checkout.folder / "data/mini/trials/trials_H"
    lines = trials.read_text().splitlines(keepends=True)
    trials.write_text("".join(lines[:-1]))
    os.utime(trials, (0, 0))
    accept = [sys.executable, "-m", "wespeaker_lite.bin.stamp", "accept", "data/mini/.lists.stamp", "--outputs"]
    for stage in (1, 6):  # these stages keep an edited list
        assert f"{' '.join(accept[1:])} data/mini/trials/trials_H" in checkout.bad(*only(stage))
    subprocess.run([*accept, "data/mini/trials/trials_H"], cwd=checkout.folder, check=True)
    checkout.good(*only(1))
    checkout.good(*only(6))
    assert len((checkout.exp / "scores/trials_H.cosine.score").read_text().splitlines()) == len(lines) - 1
    trials.unlink()
    checkout.good(*only(1))
    checkout.good("--stage", "6")
    assert products(checkout) == uninterrupted


def walk(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_stage_waits_for_files_that_appear_late(checkout: Checkout, uninterrupted: dict[str, str]) -> None:
    runner = checkout.folder / "late.sh"
    runner.write_text(LATE)
    runner.chmod(0o755)
    (checkout.exp / "embeddings/test/.embed.stamp").unlink()
    checkout.good("--stage", "5", "--stop-stage", "5", "--cmd", "./late.sh")
    checkout.good("--stage", "6")
    assert products(checkout) == uninterrupted


@pytest.mark.parametrize(("stage", "stamp"), [(1, ".lists.stamp"), (2, "train/.fbank.stamp")])
def test_a_program_that_fails_while_files_are_listed(
    checkout: Checkout, uninterrupted: dict[str, str], tmp_path: Path, stage: int, stamp: str
) -> None:
    (tmp_path / "find").write_text(FIND.format(find=shutil.which("find")))
    (tmp_path / "find").chmod(0o755)
    (checkout.folder / "data/mini" / stamp).unlink()
    said = checkout.bad(*only(stage), PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert "find data/mini/train -maxdepth 1 -type f" in said
    assert not (checkout.folder / "data/mini" / stamp).exists()
    checkout.good()
    assert products(checkout) == uninterrupted


def test_a_full_disk_in_training_keeps_existing_files(checkout: Checkout, uninterrupted: dict[str, str]) -> None:
    """Files are limited to 20 kB, less than a checkpoint: EFBIG behaves like ENOSPC."""
    again = ("--config", "conf/teacher.yaml", "--name", "again", "--stage", "4", "--stop-stage", "4")
    done = checkout.run(*again, under=["bash", "-c", 'ulimit -f 20; exec "$@"', "bash"])
    assert done.returncode == 1
    assert "stage 4 (train_student) failed" in done.stderr
    assert re.search(r"(File too large|cannot be written \(disk full\?\)): exp/mini/again/checkpoints/", done.stderr)
    folder = checkout.folder / "exp/mini/again"
    assert not (folder / "final.pt").exists()
    assert not list((folder / "checkpoints").iterdir())
    checkout.good(*again)
    assert (folder / "final.pt").read_bytes() == (checkout.folder / "exp/mini/teacher/final.pt").read_bytes()
    shutil.rmtree(folder)


def test_a_folder_that_is_not_writable(checkout: Checkout, uninterrupted: dict[str, str]) -> None:
    (checkout.exp / ".score.stamp").unlink()
    before = stat.S_IMODE(checkout.exp.stat().st_mode)
    checkout.exp.chmod(0o555)
    # Root may write anywhere unless it drops the capability.
    words = ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"] if os.geteuid() == 0 else []
    try:
        done = checkout.run("--stage", "6", under=words)
    finally:
        checkout.exp.chmod(before)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Permission denied" in done.stderr
    assert "exp/mini/student" in done.stderr
    assert "Traceback" not in done.stderr
    checkout.good("--stage", "6")
    assert products(checkout) == uninterrupted
