"""The program of `egs/<corpus>/results.sh`, in a copy of the repository's folders with a fake run.sh."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from wespeaker_lite.recipe.rows import COLUMNS

RUN = """\
case "$*" in *--bad*) echo "run.sh: unknown option --bad" >&2; exit 1 ;; *--help*) exit ;; esac
while [ $# -gt 0 ]; do case $1 in --name) name=$2 ;; --config) config=$2 ;; esac; shift; done
[ "$name" != broken ] || { echo "the cause"; exit 1; }
mkdir -p "$ROOT/exp/small/$name" && echo "$PWD $config" > "$ROOT/exp/small/$name/final.pt"
"""
ROWS = "\n".join(["\t".join(COLUMNS), "plain\tplain\t0 1\tmain\t-\t-\t-", "broken\tplain\t0\tmain\tplain\t-\t-", ""])


@pytest.fixture
def root(repository: Path, tmp_path: Path) -> Path:
    (tmp_path / "wespeaker_lite").symlink_to(repository / "wespeaker_lite")
    for folder in ("conf", "egs/small", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "conf/plain.yaml").write_text("model: {name: ecapa_tdnn}\n")
    (tmp_path / "egs/small/rows.tsv").write_text(ROWS)
    (tmp_path / "run.sh").write_text(RUN)
    return tmp_path


def results(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wespeaker_lite.bin.results", "small", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(root), "ROOT": str(root)}
    return subprocess.run(
        command, cwd=root / "elsewhere", env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_rows_run_in_the_callers_folder_and_a_failed_row_fails_the_program(root: Path) -> None:
    done = results(root, "--corpus-dir", "speech", "--parallel", "2", "main")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    states = [line.split("|")[1:4] for line in done.stdout.splitlines()[2:]]
    assert [[cell.strip() for cell in row] for row in states] == [
        ["plain", "whole", "trained"], ["plain_s1", "whole", "trained"], ["broken", "failed", ""]
    ]  # fmt: skip
    assert "exp/small/broken/log/row.log" in done.stdout
    assert (root / "exp/small/broken/log/row.log").read_text() == "the cause\n"
    assert (root / "exp/small/plain/final.pt").read_text() == f"{root}/elsewhere conf/plain.yaml\n"
    assert results(root, "plain:1").returncode == 0


def test_bad_arguments_are_one_line_before_anything_runs(root: Path) -> None:
    for arguments, message in (
        (("plian",), "no row 'plian'; did you mean 'plain'?"),
        (("--bad", "1", "plain"), "unknown option --bad"),
        (("--parallel", "0", "plain"), "--parallel 0: expected a number of at least 1"),
        (("--minutes", "soon", "plain"), "--minutes soon: expected a number"),
        (("--minutes",), "--minutes needs a value"),
    ):
        done = results(root, *arguments)
        assert done.returncode == 1, arguments
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    assert not (root / "exp").exists()
    assert "Usage: bash egs/small/results.sh" in results(root, "--help").stdout
    assert "broken" in results(root, "list").stdout
