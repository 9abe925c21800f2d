"""Tell, before anything is trained, whether training or scoring would end with an error of config or data."""

import argparse
from pathlib import Path

from wespeaker_lite.bin import run
from wespeaker_lite.core.errors import InputError


def main() -> None:
    """Parse the arguments and check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, type=Path, help="the experiment's resolved config.yaml")
    parser.add_argument("--data", required=True, type=Path, help="data dir of the training set, with features")
    parser.add_argument("--noise", default="", help="data dir of noise, where the config mixes some in")
    parser.add_argument("--teacher", action="append", default=[], help="final.pt of a teacher that is there already")
    parser.add_argument("--start-from", default="", help="final.pt, or config.yaml of what is trained first")
    parser.add_argument("--processes", type=int, default=1, help="how many share the training")
    parser.add_argument("--test", type=Path, help="data dir of the test set, if scores are to be made")
    parser.add_argument("--trials", nargs="+", default=[], metavar="LIST", help="trial lists of the test set")
    parser.add_argument("--cohort", type=Path, help="data dir of the cohort")
    args = parser.parse_args()
    if args.test and not args.trials:
        raise InputError(f"{args.test}: there are no trial lists for it: run stage 1 again")
    from wespeaker_lite.scoring.beforehand import Plan, check_scoring  # after the arguments: they import torch
    from wespeaker_lite.training.beforehand import Job, check_training

    teachers = tuple(args.teacher)
    job = Job(args.config, args.data, args.config.parent, teachers, start_from=args.start_from, noise=args.noise)
    check_training(job, args.processes)
    if args.test:
        check_scoring(args.config, Plan(args.test, args.trials, args.cohort))


if __name__ == "__main__":
    run(main)
