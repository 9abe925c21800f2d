"""List the audio files that data dirs name, with their sizes and times, for the stamp of the feature stage."""

import argparse

from wespeaker_lite.bin import run
from wespeaker_lite.data.audio_list import list_audio


def main() -> None:
    """Parse the arguments and list."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dirs", nargs="+")
    for directory in parser.parse_args().dirs:
        list_audio(directory)


if __name__ == "__main__":
    run(main)
