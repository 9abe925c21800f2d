"""tools/parse_options.sh: the options of a script are the variables that it has set."""

import os
import subprocess
from pathlib import Path

import pytest

PARSE_OPTIONS = Path(__file__).resolve().parents[2] / "tools" / "parse_options.sh"
SCRIPT = f"""#!/usr/bin/env bash
set -euo pipefail
stage=0
stop_stage=7
config=conf/x.yaml
resume=true
corpus_dir=
sets=()
help_message='Usage: script.sh [options]
  --stage N  where to start'
. {PARSE_OPTIONS}
for name in stage stop_stage config resume corpus_dir; do printf '%s=%s\\n' "$name" "${{!name}}"; done
for value in "${{sets[@]}}"; do printf 'set=%s\\n' "$value"; done
for value; do printf 'rest=%s\\n' "$value"; done
# Nothing of the parser's own stays behind.
compgen -v _options || compgen -A function || true
"""
DEFAULTS = {"stage": "0", "stop_stage": "7", "config": "conf/x.yaml", "resume": "true", "corpus_dir": ""}


def call(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.sh").write_text(SCRIPT)
    return subprocess.run(
        ["bash", "script.sh", *words],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def lines(**changed: str) -> list[str]:
    return [f"{name}={value}" for name, value in (DEFAULTS | changed).items()]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], lines()),
        (["--stage", "3", "--stop-stage", "5"], lines(stage="3", stop_stage="5")),
        (["--stop_stage", "5", "--stage", "-1"], lines(stage="-1", stop_stage="5")),
        (["--stage", "3", "--stage", "4"], lines(stage="4")),
        (["--config", 'a"b'], lines(config='a"b')),
        (["--config", "a 'b' $(touch BAD) `touch BAD` *"], lines(config="a 'b' $(touch BAD) `touch BAD` *")),
        (["--config", "-x"], lines(config="-x")),
        (["--corpus-dir", ""], lines()),
        (["--resume", "false"], lines(resume="false")),
        (["--sets", "a=1", "--stage", "2", "--sets", "b= 2"], [*lines(stage="2"), "set=a=1", "set=b= 2"]),
        (["--stage", "2", "one", "--stage", "3"], [*lines(stage="2"), "rest=one", "rest=--stage", "rest=3"]),
        (["--stage", "2", "--", "--stage"], [*lines(stage="2"), "rest=--stage"]),
        (["", "--help"], [*lines(), "rest=", "rest=--help"]),
    ],
)
def test_options_set_variables(tmp_path: Path, words: list[str], expected: list[str]) -> None:
    result = call(tmp_path, *words)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines() == expected
    assert os.listdir(tmp_path) == ["script.sh"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--stage"], "--stage needs a value"),
        (["--config"], "--config needs a value"),
        (["--corpus-dir", "--stage", "3"], "--corpus-dir needs a value, but --stage follows"),
        (["--stage", "abc"], "--stage needs a whole number, not 'abc'"),
        (["--stage", ""], "--stage needs a whole number, not ''"),
        (["--stage", "1.5"], "--stage needs a whole number"),
        (["--stage", "08"], "--stage needs a whole number"),
        (["--stage", "$(touch BAD)"], "--stage needs a whole number"),
        (["--resume", "yes"], "--resume needs true or false, not 'yes'"),
        (["--resume", "1"], "--resume needs true or false"),
        (["--stop-stge", "3"], "unknown option --stop-stge; the nearest: --stop-stage"),
        (["--stgae", "3"], "unknown option --stgae; the nearest: --stage"),
        (["--learning-rate", "3"], "unknown option --learning-rate (--help"),
        (["--stage=3"], "write '--stage 3', not '--stage=3'"),
        (["--help-message", "x"], "unknown option --help-message"),
        (["--PATH", "x"], "unknown option --PATH"),
        (["--_option", "x"], "unknown option --_option"),
        (["--sets[$(touch BAD)]", "x"], "unknown option --sets["),
        (["--some-thing", "x"], "unknown option --some-thing"),
        (["--stage", "3", "--nope", "x", "rest"], "unknown option --nope"),
    ],
)
def test_wrong_options_end_with_1(tmp_path: Path, words: list[str], message: str) -> None:
    result = call(tmp_path, *words, some_thing="from the environment")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"script.sh: {message}")
    assert len(result.stderr.splitlines()) == 1
    assert os.listdir(tmp_path) == ["script.sh"]


@pytest.mark.parametrize("value", ["0", "9"])
def test_an_exported_variable_of_the_script_is_an_option(tmp_path: Path, value: str) -> None:
    assert call(tmp_path, "--stage", "5", stage=value).stdout.splitlines() == lines(stage="5")
    (tmp_path / "common.sh").write_text(SCRIPT)
    words = ["bash", "-c", "set -u; . ./common.sh", "run.sh", "--stage", "5"]
    output = subprocess.check_output(words, cwd=tmp_path, env=os.environ | {"stage": value}, text=True)
    assert output.splitlines() == lines(stage="5")


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--stage", "3", "--help"]])
def test_help_prints_the_scripts_own(tmp_path: Path, words: list[str]) -> None:
    result = call(tmp_path, *words)
    assert (result.returncode, result.stdout) == (0, "Usage: script.sh [options]\n  --stage N  where to start\n")
