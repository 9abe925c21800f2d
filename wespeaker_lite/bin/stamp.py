"""Check or leave the stamp of a stage.

`check` ends with 0 where the stage is done, and with 3 where it is to be done. Any other code is an error, such as an
input that is not there.
"""

import argparse
import sys

from wespeaker_lite import stamps
from wespeaker_lite.bin import run

TO_BE_DONE = 3


def main() -> None:
    """Parse the arguments and ask `wespeaker_lite.stamps`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("action", choices=["check", "write"])
    parser.add_argument("stamp")
    parser.add_argument("--files", nargs="*", default=[], help="inputs, by content")
    parser.add_argument("--trees", nargs="*", default=[], help="input folders, by names, sizes and times")
    parser.add_argument("--folders", nargs="*", default=[], help="input folders, by the folders in them")
    parser.add_argument("--config", default="", help="a resolved config, for --sections")
    parser.add_argument("--sections", nargs="*", default=[], help="config sections that the stage depends on")
    parser.add_argument("--words", nargs="*", default=[], help="options that the stage depends on")
    parser.add_argument("--outputs", nargs="*", default=[], help="what the stage has made (with write)")
    args = parser.parse_args()
    inputs = stamps.Inputs(
        files=tuple(args.files),
        trees=tuple(args.trees),
        folders=tuple(args.folders),
        config=args.config,
        sections=tuple(args.sections),
        words=tuple(args.words),
    )
    if args.action == "write":
        stamps.write(args.stamp, inputs, args.outputs)
        return
    if not stamps.is_fresh(args.stamp, inputs):
        sys.exit(TO_BE_DONE)


if __name__ == "__main__":
    run(main)
