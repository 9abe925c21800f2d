"""Make data dirs and the lists O, E and H of VoxCeleb1 and 2, or only check the corpora and download the lists."""

import argparse
from pathlib import Path

from wespeaker_lite.bin import run
from wespeaker_lite.corpora.voxceleb import Options, get, prepare


def main() -> None:
    """Parse the arguments and call `wespeaker_lite.corpora.voxceleb`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--corpus-dir",
        required=True,
        type=Path,
        help="folder with vox1/ and vox2/, and lists/ if you have the lists",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        help="folder to write train/, test/ and trials/ into; without it, the corpus is only checked",
    )
    parser.add_argument(
        "--train", default=Options.train, help="vox2, vox1 or both: corpora whose dev part is the training set"
    )
    parser.add_argument(
        "--trials", nargs="+", default=list(Options.trials), help="trial lists to make, of O, E and H (default: all)"
    )
    parser.add_argument(
        "--decode",
        choices=["pipe", "flac"],
        default="pipe",
        help="decode m4a whenever it is read (pipe), or once (flac)",
    )
    parser.add_argument(
        "--strict",
        choices=["true", "false"],
        default="false",
        help="whether differences from the published corpora are errors",
    )
    parser.add_argument("--meta-url", default="", help="address from which missing lists are downloaded")
    args = parser.parse_args()
    options = Options(args.train, tuple(args.trials), args.decode == "flac", args.strict == "true")
    if args.data_dir:
        prepare(args.corpus_dir, args.data_dir, options)
    else:
        get(args.corpus_dir, options, args.meta_url)


if __name__ == "__main__":
    run(main)
