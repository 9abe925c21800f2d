"""List the audio files of data dirs with their sizes and times, for the stamp of the feature stage."""

import argparse

from wespeaker_lite.audio.audio_list import list_audio
from wespeaker_lite.bin import run


def main() -> None:
    """Parse the arguments and call `list_audio`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dirs", nargs="+", help="data dirs")
    parser.add_argument("--no-pipes", action="store_true", help="refuse a wav.scp that contains a command")
    args = parser.parse_args()
    for directory in args.dirs:
        list_audio(directory, not args.no_pipes)


if __name__ == "__main__":
    run(main)
