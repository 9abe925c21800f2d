"""Check or write the stamp of a stage.

`check` exits with 0 if the stage is done, and with 3 if it must run. Any other code is an error, such as a missing
input. `accept` accepts outputs that a user has changed:

    python -m wespeaker_lite.bin.stamp accept data/mini/.lists.stamp --outputs data/mini/trials/trials_O
"""

import argparse
import sys

from wespeaker_lite.bin import run
from wespeaker_lite.recipe import stamps

TO_BE_DONE = 3


def main() -> None:
    """Parse the arguments and call `wespeaker_lite.recipe.stamps`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["check", "write", "accept"])
    parser.add_argument("stamp")
    parser.add_argument("--files", nargs="*", default=[], help="input files, compared by content")
    parser.add_argument(
        "--trees", nargs="*", default=[], help="input folders, compared by names, sizes and times of their files"
    )
    parser.add_argument(
        "--folders", nargs="*", default=[], help="input folders, compared by the names of the folders in them"
    )
    parser.add_argument("--config", default="", help="resolved config, for --sections")
    parser.add_argument("--sections", nargs="*", default=[], help="sections of the config that the stage depends on")
    parser.add_argument("--words", nargs="*", default=[], help="options that the stage depends on")
    parser.add_argument(
        "--current",
        nargs="*",
        default=[],
        help="stamps of other stages that must still be valid, because their files are read",
    )
    parser.add_argument(
        "--outputs", nargs="*", default=[], help="files that the stage has made (with write and accept)"
    )
    parser.add_argument("--editable", nargs="*", default=[], help="outputs that users may edit (with write)")
    args = parser.parse_args()
    inputs = stamps.Inputs(
        files=tuple(args.files),
        trees=tuple(args.trees),
        folders=tuple(args.folders),
        config=args.config,
        sections=tuple(args.sections),
        words=tuple(args.words),
        current=tuple(args.current),
    )
    if args.action == "write":
        stamps.write(args.stamp, inputs, args.outputs, args.editable)
    elif args.action == "accept":
        stamps.accept(args.stamp, args.outputs)
    elif not stamps.is_fresh(args.stamp, inputs):
        sys.exit(TO_BE_DONE)


if __name__ == "__main__":
    run(main)
