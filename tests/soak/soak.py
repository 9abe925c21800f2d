"""Soak test with hundreds of faults in the recipe, run by hand: python -m tests.soak.soak --kills 200
or: python -m tests.soak.soak --corruptions 300

A tiny mini corpus goes through all stages, with teacher and student. --kills kills the run, or one of its processes, at
a random moment, and the same command resumes. When a run finishes, all its outputs must equal those of an uninterrupted
run, byte for byte. Then the next run starts without any output.

--corruptions damages a random output of a stage. Then the same command or a single stage runs, in half of the cases
without its stamp. It must give the outputs of an uninterrupted run, or end with an error. Then the undamaged files are
restored.

Exits with 1 for any other result.
"""

import argparse
import contextlib
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.end_to_end.checkout import Checkout, make_checkout
from tests.end_to_end.damage import DAMAGES, artefacts
from tests.end_to_end.kills import products, run_and_kill
from tests.soak.server import serving

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Parse the arguments, and run the soak test."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--kills", type=int, default=200)
    what.add_argument("--corruptions", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=20, help="each kill comes within so many seconds of the start")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak."))
    checkout = make_checkout(ROOT, folder / "checkout")
    print(f"the uninterrupted run, in {checkout.folder}", flush=True)
    with serving(checkout.folder) if args.corruptions else contextlib.nullcontext({}) as variables:
        started = time.monotonic()
        checkout.good(**variables)
        expected = products(checkout)
        print(f"{len(expected)} files in {time.monotonic() - started:.0f} s", flush=True)
        chance = random.Random(args.seed)
        if args.corruptions:
            corrupt(checkout, expected, args.corruptions, chance, variables)
        else:
            soak(checkout, expected, args.kills, args.seconds, chance)
    shutil.rmtree(folder)


def soak(checkout: Checkout, expected: dict[str, str], kills: int, seconds: float, chance: random.Random) -> None:
    """Kill a number of times, then let the last run finish. A wrong result ends the program."""
    wipe(checkout)
    rounds, done = 0, 0
    while done < kills:
        what, code = run_and_kill(checkout, chance, seconds)
        killed = "it had ended" not in what
        done += killed
        print(f"{done:4d} {what}; exit code {code}", flush=True)
        if code == 0:
            compare(checkout, expected)
            rounds += 1
            wipe(checkout)
        elif not killed:
            sys.exit(f"a run failed of itself; see {checkout.folder}")
    checkout.good()
    compare(checkout, expected)
    print(f"{done} kills, {rounds + 1} runs got to their end, and nothing was lost")


# The stages that may run alone, and their stamps. Stage 4 trains teacher and student; stage 5 embeds two sets.
STAMPS = {
    1: ["data/mini/.lists.stamp"],
    2: ["data/mini/train/.fbank.stamp", "data/mini/test/.fbank.stamp"],
    3: ["exp/mini/teacher/.train.stamp"],
    4: ["exp/mini/student/.train.stamp"],
    5: ["exp/mini/student/embeddings/train/.embed.stamp", "exp/mini/student/embeddings/test/.embed.stamp"],
    6: ["exp/mini/student/.score.stamp"],
    7: ["exp/mini/student/.report.stamp"],
}


def corrupt(
    checkout: Checkout, expected: dict[str, str], corruptions: int, chance: random.Random, variables: dict[str, str]
) -> None:
    """Damage one file at a time. Exits with 1 at the end if a run had wrong outputs without an error."""
    counts = {"healed": 0, "unread": 0, "error": 0, "WRONG": 0}
    whole = checkout.folder.with_name("whole")
    copy_products(checkout.folder, whole)
    for number in range(1, corruptions + 1):
        told, outcome, last = damage_one(checkout, expected, chance, variables)
        counts[outcome] += 1
        print(f"{number:4d} {told}: {outcome} {last}; so far {counts}", flush=True)
        wipe(checkout)
        copy_products(whole, checkout.folder)
    print(f"{corruptions} corruptions: {', '.join(f'{count} {outcome}' for outcome, count in counts.items())}")
    if counts["WRONG"]:
        sys.exit(1)


def damage_one(
    checkout: Checkout, expected: dict[str, str], chance: random.Random, variables: dict[str, str]
) -> tuple[str, str, str]:
    """Damage a file and run. Returns what was done, the result, and the error line if there is one."""
    files = artefacts(checkout)
    path, damage = chance.choice(files), chance.choice(DAMAGES)
    others = [found for found in files if found != path and found.suffix == path.suffix]
    before = {found: found.read_bytes() for found in files}
    damage(path, chance, others or [path])
    damaged = [str(found.relative_to(checkout.folder)) for found in files if not is_still(found, before[found])]
    stage = chance.choice([None, *STAMPS])
    told = f"{damage.__name__} {' '.join(damaged)}, " + (f"stage {stage}" if stage else "all stages")
    if stage and chance.random() < 0.5:
        told += " without its stamp"
        for stamp in STAMPS[stage]:
            (checkout.folder / stamp).unlink(missing_ok=True)
    done = checkout.run(*(("--stage", str(stage), "--stop-stage", str(stage)) if stage else ()), **variables)
    last = [line for line in done.stderr.splitlines() if not line.startswith("run.sh: stage ")][-1:]
    if done.returncode:
        return told, "WRONG" if "Traceback" in done.stderr else "error", " ".join(last)
    different = differences(checkout, expected)
    if stage and set(different) <= set(damaged):  # a stage alone does not fix what it does not read
        return told, "unread" if different else "healed", ""
    return told, "WRONG" if different else "healed", " ".join(different)


def is_still(path: Path, content: bytes) -> bool:
    """Whether a file exists and has this content."""
    return path.is_file() and path.read_bytes() == content


def copy_products(source: Path, to: Path) -> None:
    """Copy all outputs of stages, with their times."""
    for name in ("data", "exp"):
        shutil.copytree(source / name, to / name)


def differences(checkout: Checkout, expected: dict[str, str]) -> list[str]:
    """The files that differ from those of an uninterrupted run, without checkpoints that were set aside."""
    found = {name: digest for name, digest in products(checkout).items() if "/checkpoints." not in name}
    return sorted(name for name in found.keys() | expected if found.get(name) != expected.get(name))


def compare(checkout: Checkout, expected: dict[str, str]) -> None:
    """End the program if a run has wrong outputs."""
    different = differences(checkout, expected)
    if different:
        sys.exit(f"{different} are not what an uninterrupted run leaves; see {checkout.folder}")


def wipe(checkout: Checkout) -> None:
    """Remove all outputs."""
    for name in ("data", "exp"):
        shutil.rmtree(checkout.folder / name)


if __name__ == "__main__":
    main()
