"""Soak: hundreds of SIGKILLs at random moments of the recipe, by hand: python -m tests.soak.soak --kills 200

A tiny mini corpus goes through all stages, teacher and student; each time something is killed, all of the run or one of
its processes, and the same command goes on. Whenever a run gets to its end, all that it leaves must equal, byte for
byte, what a run leaves that nothing happened to; then the next begins from nothing. Ends with 1, and keeps the folder,
if it does not.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.recipe.checkout import Checkout, make_checkout
from tests.recipe.kills import products, run_and_kill

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    """Parse the arguments, and kill."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20, help="each kill comes within so many seconds of the start")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak."))
    checkout = make_checkout(ROOT, folder / "checkout")
    print(f"the undisturbed run, in {checkout.folder}", flush=True)
    started = time.monotonic()
    checkout.good()
    expected = products(checkout)
    print(f"{len(expected)} files in {time.monotonic() - started:.0f} s", flush=True)
    soak(checkout, expected, args.kills, args.seconds, random.Random(args.seed))
    shutil.rmtree(folder)


def soak(checkout: Checkout, expected: dict[str, str], kills: int, seconds: float, chance: random.Random) -> None:
    """Kill so many times, then let the last run get to its end; what went wrong ends the program."""
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


def compare(checkout: Checkout, expected: dict[str, str]) -> None:
    """End the program where a run left anything else than it should."""
    found = products(checkout)
    different = sorted(name for name in found.keys() | expected if found.get(name) != expected.get(name))
    if different:
        sys.exit(f"{different} are not what an undisturbed run leaves; see {checkout.folder}")


def wipe(checkout: Checkout) -> None:
    """Begin from nothing."""
    for name in ("data", "exp"):
        shutil.rmtree(checkout.folder / name)


if __name__ == "__main__":
    main()
