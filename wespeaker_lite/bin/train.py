"""Train a network from a resolved config. It resumes from the last checkpoint."""

import argparse
from pathlib import Path

from wespeaker_lite.bin import run


def main() -> None:
    """Parse the arguments and call `train`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="resolved config.yaml of the experiment")
    parser.add_argument("--data", required=True, help="data dir with feats.scp, utt2num_frames and utt2spk")
    parser.add_argument("--out", required=True, help="folder of the experiment")
    parser.add_argument("--teacher", action="append", default=[], help="final.pt of a teacher; may be repeated")
    parser.add_argument(
        "--teacher-embeddings",
        action="append",
        default=[],
        help="xvector.scp of a teacher for the training set; may be repeated",
    )
    parser.add_argument("--start-from", default="", help="final.pt with the initial weights")
    parser.add_argument(
        "--noise", default="", help="data dir with features of noise, if the config adds noise to crops"
    )
    parser.add_argument(
        "--inputs", nargs="*", default=[], help="other files that the result depends on, as in the stamp of the stage"
    )
    args = parser.parse_args()
    from wespeaker_lite.training.job import Job, train  # here, so that --help need not wait for torch

    paths = Path(args.config), Path(args.data), Path(args.out)
    teachers = tuple(args.teacher), tuple(args.teacher_embeddings)
    train(Job(*paths, *teachers, args.start_from, tuple(args.inputs), args.noise))


if __name__ == "__main__":
    run(main)
