"""The caller's environment variables do not change the behaviour of the scripts."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from wespeaker_lite.audio.fbank import FbankConfig
from wespeaker_lite.core.config import to_mapping


@pytest.mark.parametrize(
    "script", ["run.sh", "local/score.sh", "egs/mini/run.sh", "egs/own/run.sh", "tools/data_dir.sh"]
)
@pytest.mark.parametrize("variable", ["CDPATH=.:/usr", "set=x", "teacher_set=x"])
def test_exported_variables_do_not_reach_the_scripts(repository: Path, script: str, variable: str) -> None:
    name, _, value = variable.partition("=")
    environment = {**os.environ, name: value}
    ran = subprocess.run(
        ["bash", script, "--help"], cwd=repository, env=environment, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.lower().startswith("usage:")


@pytest.mark.parametrize("option", ["--corpus-dir", "--name", "--model"])
def test_paths_that_are_not_utf8_are_refused_in_a_line(repository: Path, tmp_path: Path, option: str) -> None:
    folder = os.fsencode(tmp_path) + b"/lat\351n"
    os.mkdir(folder)
    for words, where in (([option, folder], repository), ([], folder)):
        ran = subprocess.run(
            ["bash", repository / "local/score.sh", *words], cwd=where, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 1
        assert ran.stderr.startswith("score.sh: not UTF-8: a path of ")
        assert ran.stderr.count("\n") == 1
        assert r"lat\351n" in ran.stderr


def test_an_exported_array_does_not_change_the_command_line(repository: Path) -> None:
    words = ["--set", "train.epochs=2", "--corpus", "none"]
    ran = subprocess.run(
        ["bash", "local/score.sh", *words],
        cwd=repository, env={**os.environ, "set": "x"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 1
    assert ran.stderr.startswith("score.sh: --corpus none: no egs/none/corpus.conf")


def test_the_scripts_have_the_default_front_end(repository: Path) -> None:
    """Fbanks of another section `features` are in a folder of their own."""
    lines = (repository / "local/settings.sh").read_text().splitlines()
    known = [line for line in lines if line.startswith("default_features")]
    said = subprocess.run(
        ["bash", "-c", "\n".join([*known, 'echo "$default_features"'])], capture_output=True, check=True
    )
    assert said.stdout.decode().strip() == json.dumps(to_mapping(FbankConfig()))


def test_scripts_use_no_process_substitution_for_input(repository: Path) -> None:
    """Bash ignores the failure of a program in <( ), so its reader would accept an incomplete list."""
    scripts = [path for name in ("local", "tools", "egs") for path in (repository / name).rglob("*.sh")]
    for script in (repository / "run.sh", repository / "path.sh", *scripts):
        code = [line.partition(" #")[0] for line in script.read_text().splitlines() if not line.startswith("#")]
        assert not [line for line in code if "<(" in line], script
