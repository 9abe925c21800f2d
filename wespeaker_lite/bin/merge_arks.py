"""Join the arks of several jobs into one."""

import argparse

from wespeaker_lite.bin import run
from wespeaker_lite.kaldi.arks import merge


def main() -> None:
    """Parse the arguments and call `merge`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="+", help=".scp of each part, or its prefix")
    parser.add_argument("--out", required=True, help="prefix of the .ark and .scp to write")
    parser.add_argument("--keys-of", default="", metavar="TABLE", help="table whose keys the arks must have")
    args = parser.parse_args()
    merge([part.removesuffix(".scp") for part in args.parts], args.out, args.keys_of)


if __name__ == "__main__":
    run(main)
