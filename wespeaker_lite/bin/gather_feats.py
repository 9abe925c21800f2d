"""Gather the outputs of make_fbank jobs into a data dir."""

import argparse
from pathlib import Path

from wespeaker_lite.bin import run
from wespeaker_lite.corpora.augmented_copies import Copy
from wespeaker_lite.corpora.gather_fbanks import gather


def main() -> None:
    """Parse the arguments and call `gather`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="source", required=True, type=Path, help="data dir that the jobs have read")
    parser.add_argument("--parts", required=True, type=Path, help="folder of the jobs' outputs: feats.N.scp and others")
    parser.add_argument("--out", required=True, type=Path, help="data dir to write; it may be that of --from")
    parser.add_argument("--speed", type=float, default=1.0, help="speed of the copy (default: %(default)s)")
    parser.add_argument("--copy", default="", help="kind of the copy: reverb, noise, music, babble")
    args = parser.parse_args()
    gather(args.source, args.parts, args.out, Copy(args.speed, args.copy))


if __name__ == "__main__":
    run(main)
