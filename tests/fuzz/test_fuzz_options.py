"""tools/parse_options.sh and the job line of tools/run.pl against simple models of both; no value is ever run."""

import re
import subprocess
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz.common import examples

TOOLS = Path(__file__).resolve().parents[2] / "tools"
SCRIPT = f"""\
stage=0
config=conf/x.yaml
resume=true
sets=()
help_message=help
. {TOOLS}/parse_options.sh
printf '%s\\0' "$stage" "$config" "$resume" "${{#sets[@]}}" "${{sets[@]}}" "$@"
"""
BAD = [
    "$(touch BAD)", "`touch BAD`", "; touch BAD", "| touch BAD", "x[$(touch BAD)]", "'; touch BAD; '",
    '"; touch BAD; "', "\n touch BAD", "&& touch BAD", "<(touch BAD)", "> BAD", "{touch,BAD}", "${stage@P}", "*", "~",
    "\\", "'", '"', "-n", "%s",
]  # fmt: skip
VALUES = [
    *BAD, "", "a b", "1", "-1", "0", "08", "0x1f", "1e3", "true", "false", "yes", "9" * 18, "9" * 19, "stage",
    "\u00e9",
]  # fmt: skip
OPTIONS = [
    "--stage", "--config", "--resume", "--sets", "--help", "--", "-h", "--stage=1", "--Stage", "--st-age", "--nope",
    "--help-message", "--_options_read", "--PATH", "--IFS", "---", "---stage", "--sets[0]", "--stage$(touch BAD)",
]  # fmt: skip
NAMES = {"--stage": 0, "--config": 1, "--resume": 2, "--sets": 3}


def parsed(words: list[str]) -> list[str] | None:
    """The output of the script for these arguments; None if it exits with 1, ["help"] if it prints its help."""
    stage, config, resume, sets = "0", "conf/x.yaml", "true", []
    while words and (words[0].startswith("--") or words[0] == "-h"):
        option, *rest = words
        if option in ("--help", "-h"):
            return ["help"]
        if option == "--":
            words = rest
            break
        if option not in NAMES or not rest or rest[0] in NAMES:
            return None
        value, *words = rest
        if option == "--stage" and not re.fullmatch(r"-?(0|[1-9][0-9]{0,17})", value):
            return None
        if option == "--resume" and value not in ("true", "false"):
            return None
        match option:
            case "--stage":
                stage = value
            case "--config":
                config = value
            case "--resume":
                resume = value
            case "--sets":
                sets.append(value)
    return [stage, config, resume, str(len(sets)), *sets, *words]


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, cwd=folder, capture_output=True, timeout=20, check=False)


WORDS = st.lists(st.one_of(st.sampled_from(OPTIONS[:4]), st.sampled_from(OPTIONS), st.sampled_from(VALUES)), max_size=6)
PAIRS = st.lists(st.tuples(st.sampled_from(OPTIONS[:4]), st.sampled_from(VALUES)), max_size=3).map(
    lambda pairs: [word for pair in pairs for word in pair]
)


@examples(30)
@given(words=st.one_of(WORDS, PAIRS))
@example(words=["--config", "\n"])
@example(words=[*(word for value in BAD for word in ("--sets", value)), *BAD])
def test_options_are_parsed_as_by_a_simple_model(folder: Path, words: list[str]) -> None:
    script = folder / "script.sh"
    script.write_text(f"set -euo pipefail\n{SCRIPT}")
    done = run(folder, "bash", str(script), *words)
    expected = parsed(words)
    if expected is None:
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr.startswith(b"script.sh: ")
    elif expected == ["help"]:
        assert (done.returncode, done.stdout) == (0, b"help\n")
    else:
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout == b"".join(word.encode() + b"\0" for word in expected)
    assert not (folder / "BAD").exists()


ARGUMENTS = [word for word in BAD if word[0] not in ">%"]  # a redirection acts, as it should; printf has the other

RANGES = [
    "JOB=1:2", "JOB=2", "JOB=0:1", "JOB=2:1", "JOB=1:", "JOB=:1", "JOB=", "JOB=1:2:3", "JOB=1:1\n", "J B=1:2", "=1:2",
    "JOB=1:$(touch BAD)", "JOB=99999999999:99999999999",
]  # fmt: skip
RUNNERS = ["--mem", "--gpu", "--max-jobs-run", "-tc", "--pick", "-V", "-pe", "--help", "-x", "--nope"]
LOGS = [
    "x.log", "x.JOB.log", "a b.JOB.log", "$(touch BAD).JOB", "'.JOB", '".JOB', "JOB\n.log", ";touch BAD;JOB", "-JOB",
]  # fmt: skip


@examples(20)
@given(
    before=st.lists(st.one_of(st.sampled_from(RUNNERS), st.sampled_from(["0", "1", "all", "2G", *BAD])), max_size=3),
    jobs=st.lists(st.sampled_from(RANGES), max_size=2),
    log=st.sampled_from(LOGS),
    words=st.lists(st.sampled_from(["JOB", "a b", *ARGUMENTS]), max_size=3),
)
@example(before=[], jobs=["JOB=1:2"], log="$(touch BAD).JOB", words=ARGUMENTS)
def test_a_job_line_runs_its_words_or_is_refused(
    folder: Path, before: list[str], jobs: list[str], log: str, words: list[str]
) -> None:
    out = folder / "out.JOB"
    for number in (1, 2):
        (folder / f"out.{number}").unlink(missing_ok=True)
    line = [*before, *jobs, log, "printf", "%s\\0", *words, ">", str(out)]
    done = run(folder, str(TOOLS / "run.pl"), *line)
    assert done.returncode in (0, 1), done.stderr
    assert not re.search(rb" at \S+ line \d+", done.stderr), done.stderr  # Perl's own word
    assert not (folder / "BAD").exists()
    if (
        not before
        and jobs in (["JOB=1:2"], ["JOB=2"])
        and (jobs == ["JOB=2"] or "JOB" in log)
        and not log.startswith("-")
    ):
        assert done.returncode == 0, done.stderr
        for number in "12" if jobs == ["JOB=1:2"] else "2":
            said = (folder / f"out.{number}").read_bytes().split(b"\0")
            assert said == [*(word.replace("JOB", number).encode() for word in words or [""]), b""]
