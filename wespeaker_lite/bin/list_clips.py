"""Make a data dir of the noises of MUSAN, or of the impulse responses of RIRS_NOISES."""

import argparse

from wespeaker_lite.bin import run
from wespeaker_lite.corpora.augmented_copies import write_clips
from wespeaker_lite.corpora.musan_rirs import read_musan, read_rirs


def main() -> None:
    """Parse the arguments and call `write_clips`."""
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--musan-dir", help="folder with noise/, music/ and speech/, or some of them")
    what.add_argument("--rirs-dir", help="folder of RIRS_NOISES")
    parser.add_argument("--out", required=True, help="data dir to write")
    args = parser.parse_args()
    write_clips(args.out, read_musan(args.musan_dir) if args.musan_dir else {"room": read_rirs(args.rirs_dir)})


if __name__ == "__main__":
    run(main)
