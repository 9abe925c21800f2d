"""Make a corpus of simulated speakers. Existing files are kept, so that an interrupted run can be completed."""

import argparse
import os

from wespeaker_lite.bin import run
from wespeaker_lite.corpora.simulation import SimulationOptions, simulate_corpus


def main() -> None:
    """Parse the arguments and call `simulate_corpus`."""
    defaults = SimulationOptions()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, help="folder to write {train,test}/speaker/session/utterance.flac into")
    parser.add_argument("--train-speakers", type=int, default=defaults.train_speakers)
    parser.add_argument("--test-speakers", type=int, default=defaults.test_speakers)
    parser.add_argument(
        "--sessions", type=int, default=defaults.sessions, help="sessions per speaker (default: %(default)s)"
    )
    parser.add_argument(
        "--train-utterances",
        type=int,
        default=defaults.train_utterances,
        help="training utterances per session (default: %(default)s)",
    )
    parser.add_argument(
        "--test-utterances",
        type=int,
        default=defaults.test_utterances,
        help="test utterances per session (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--jobs", type=int, default=0, help="number of processes (default: 0, one per CPU)")
    options = vars(parser.parse_args())
    out, jobs = options.pop("out"), options.pop("jobs")
    simulate_corpus(out, SimulationOptions(**options), jobs or len(os.sched_getaffinity(0)))


if __name__ == "__main__":
    run(main)
