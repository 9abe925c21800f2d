"""Decode the files of an scp to FLAC, by ffmpeg. Existing files are kept, so that it can be resumed."""

import argparse

from wespeaker_lite.audio.ffmpeg import decode_listed
from wespeaker_lite.bin import run


def main() -> None:
    """Parse the arguments and call `decode_listed`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scp", required=True, help="table of utterance and audio file")
    parser.add_argument("--out", required=True, help="folder to write speaker/video/utterance.flac into")
    parser.add_argument(
        "--part", type=int, default=1, help="number of the part of SCP to decode, from 1 (default: %(default)s)"
    )
    parser.add_argument("--parts", type=int, default=1, help="number of parts (default: %(default)s)")
    args = parser.parse_args()
    print(decode_listed(args.scp, args.out, args.part, args.parts), "files decoded")


if __name__ == "__main__":
    run(main)
