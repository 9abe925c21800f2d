"""Gather the parts that make_fbank jobs left into a data dir."""

import argparse
from pathlib import Path

from wespeaker_lite.bin import run
from wespeaker_lite.corpora.augmented_copies import Copy
from wespeaker_lite.corpora.gather_fbanks import gather


def main() -> None:
    """Parse the arguments and gather."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--from", dest="source", required=True, type=Path, help="data dir that the jobs read")
    parser.add_argument("--parts", required=True, type=Path, help="folder of feats.N.scp and so on")
    parser.add_argument("--out", required=True, type=Path, help="data dir to write; may be the same")
    parser.add_argument("--speed", type=float, default=1.0, help="of the copy that the parts are of")
    parser.add_argument("--copy", default="", help="its kind: reverb, noise, music, babble")
    args = parser.parse_args()
    gather(args.source, args.parts, args.out, Copy(args.speed, args.copy))


if __name__ == "__main__":
    run(main)
