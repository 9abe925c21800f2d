"""Run the experiments of a corpus' rows.tsv in parallel, and print their tables; used by egs/<corpus>/results.sh."""

import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from wespeaker_lite.bin import run
from wespeaker_lite.core.errors import InputError, Stopped
from wespeaker_lite.kaldi.tables import read_table
from wespeaker_lite.recipe.row_jobs import Job, Outcome, environments, progress, run_jobs
from wespeaker_lite.recipe.rows import DEFAULT_GROUP, Row, read_rows, select, trained_before
from wespeaker_lite.report.report import BootstrapOptions
from wespeaker_lite.report.row_tables import row_tables
from wespeaker_lite.report.tables import table

TIME_IS_UP = 3
USAGE = """Usage: bash egs/{corpus}/results.sh [options] [ROW | ROW:SEED | GROUP | table | list ...]

  bash egs/{corpus}/results.sh --corpus-dir DIR                      # the rows of the group main, then the tables
  bash egs/{corpus}/results.sh --corpus-dir DIR ROW:0 table          # one row, one seed, and the tables
  bash egs/{corpus}/results.sh --corpus-dir DIR --gpu 1 --parallel 4 --minutes 50 --stop-stage 4 main

A row is a line of egs/{corpus}/rows.tsv. A group is a word in its column `groups`. `list` prints both. `table` compares
the rows that have results. The same command resumes: finished rows take seconds.

  --parallel N   number of rows that run at the same time (1); on CPUs, they share the cores
  --minutes M    stop after M minutes; running rows have one more minute to write a checkpoint (0: no limit)
  --gpu N        as in run.sh; with 1, parallel rows share the GPUs of CUDA_VISIBLE_DEVICES, or else all GPUs
  --rows FILE    use FILE instead of egs/{corpus}/rows.tsv
  Other options are passed to run.sh: --corpus-dir, --nj, --set KEY=VALUE, --stop-stage 4 (train only) ...

Exit code: 0 if all rows are whole, 1 if one failed, 3 if the time was up before all were whole."""


def main() -> None:
    """Parse the arguments, run the rows, and print the tables."""
    corpus, own, passed, words = _arguments(sys.argv[1:])
    caller = Path.cwd()
    os.chdir(Path(__file__).parents[2])  # confs are relative to the root of the repository
    rows = read_rows(caller / own["--rows"] if "--rows" in own else Path("egs") / corpus / "rows.tsv")
    if "list" in words:
        print(_listing(rows.values()), end="")
        return
    words = words or [DEFAULT_GROUP, "table"]
    options = dict(zip(passed[::2], passed[1::2], strict=True))
    place = options.get("--data-name", corpus)
    chosen = select(rows, (word for word in words if word != "table"))
    if chosen:
        program = ["bash", str(Path("run.sh").resolve()), "--corpus", corpus, *passed]
        places = environments(int(own.get("--parallel", "1")), options.get("--gpu") == "1")
        _check_options(program, caller)
        _run(_jobs(chosen, program, corpus, place), places, float(own.get("--minutes", "0")), caller)
    if "table" in words:
        bootstrap = BootstrapOptions(read_table(Path("data") / place / "test/utt2spk"))
        print(row_tables(list(rows.values()), Path("exp") / place, bootstrap), end="")


def _arguments(arguments: Sequence[str]) -> tuple[str, dict[str, str], list[str], list[str]]:
    """Split arguments: the corpus (the first one), our options, options of run.sh, and other words."""
    corpus, *rest = arguments
    own: dict[str, str] = {}
    passed: list[str] = []
    words: list[str] = []
    left = iter(rest)
    for word in left:
        if word in ("--help", "-h"):
            print(USAGE.format(corpus=corpus))
            sys.exit()
        if not word.startswith("--"):
            words.append(word)
            continue
        value = next(left, None)
        if value is None:
            raise InputError(f"{word} needs a value")
        if word in ("--parallel", "--minutes", "--rows"):
            own[word] = value
        else:
            passed += [word, value]
    for name, kind in (("--parallel", int), ("--minutes", float)):
        _number(own, name, kind)
    return corpus, own, passed, words


def _number(own: dict[str, str], name: str, kind: type) -> None:
    try:
        good = kind(own.get(name, "1")) >= (1 if kind is int else 0)
    except ValueError:
        good = False
    if not good:
        raise InputError(f"{name} {own[name]}: expected a number" + (" of at least 1" if kind is int else ""))


def _jobs(chosen: Sequence[tuple[Row, int]], program: Sequence[str], corpus: str, place: str) -> list[Job]:
    overrides, experiments = Path("egs") / corpus / "overrides.yaml", Path("exp").resolve() / place
    return [
        Job(
            row.experiment(seed), experiments / row.experiment(seed), [*program, *row.options(seed)],
            frozenset(trained_before(row, seed, overrides)),
        )
        for row, seed in chosen
    ]  # fmt: skip


def _check_options(program: Sequence[str], caller: Path) -> None:
    """Let run.sh check its options, so that an unknown one is one error, not one for each row."""
    checked = subprocess.run([*program, "--help"], cwd=caller, capture_output=True, text=True, check=False)
    if checked.returncode:
        raise InputError(checked.stderr.strip())


def _run(jobs: Sequence[Job], places: Sequence[dict[str, str]], minutes: float, caller: Path) -> None:
    outcomes, number = run_jobs(jobs, places, minutes, caller)
    print(_states(outcomes), end="", flush=True)
    states = {outcome.state for outcome in outcomes}
    if number:
        raise Stopped(number, "stopped; the same command continues")
    if "failed" in states:
        raise InputError("a row failed; its log is named above, and the same command runs it again")
    if states - {"whole"}:
        logging.getLogger(__name__).warning("the time was up; the same command continues")
        sys.exit(TIME_IS_UP)


def _states(outcomes: Sequence[Outcome]) -> str:
    def cells(one: Outcome) -> list[str]:
        log = os.path.relpath(one.job.log) if one.state in ("failed", "stopped") else ""
        return [one.job.name, one.state, progress(one.job.folder), f"{one.seconds:.0f}", log]

    return table(["row", "state", "training", "seconds", "log"], [cells(one) for one in outcomes])


def _listing(rows: Sequence[Row]) -> str:
    def cells(row: Row) -> list[str]:
        seeds, settings = " ".join(map(str, row.seeds)), " ".join(map(shlex.quote, row.settings))
        return [row.name, " ".join(row.groups), seeds, f"conf/{row.conf}.yaml {settings}".strip()]

    return table(["row", "groups", "seeds", "conf and settings"], [cells(row) for row in rows])


if __name__ == "__main__":
    run(main)
