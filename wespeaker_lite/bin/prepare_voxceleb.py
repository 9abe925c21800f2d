"""Turn VoxCeleb1 and 2 into data dirs and the O, E and H lists, or only look at them and get the lists."""

import argparse
from pathlib import Path

from wespeaker_lite.bin import run
from wespeaker_lite.corpora.voxceleb import Options, get, prepare


def main() -> None:
    """Parse the arguments and call `wespeaker_lite.corpora.voxceleb`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus-dir", required=True, type=Path, help="holds vox1/ and vox2/, may hold lists/")
    parser.add_argument(
        "--data-dir", type=Path, help="where train/, test/ and trials/ are written; without it, only look"
    )
    parser.add_argument("--train", default=Options.train, help="vox2, vox1 or both: whose dev part is trained on")
    parser.add_argument("--trials", nargs="+", default=list(Options.trials), help="of O, E and H")
    parser.add_argument("--decode", choices=["pipe", "flac"], default="pipe", help="how m4a is read")
    parser.add_argument("--strict", choices=["true", "false"], default="false", help="differences are errors")
    parser.add_argument("--meta-url", default="", help="where lists are downloaded that are in no folder")
    args = parser.parse_args()
    options = Options(args.train, tuple(args.trials), args.decode == "flac", args.strict == "true")
    if args.data_dir:
        prepare(args.corpus_dir, args.data_dir, options)
    else:
        get(args.corpus_dir, options, args.meta_url)


if __name__ == "__main__":
    run(main)
