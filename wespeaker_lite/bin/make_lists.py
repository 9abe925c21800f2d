"""Turn a corpus folder (trees or Kaldi data dirs) into data dirs and trial lists, or only check it."""

import argparse

from wespeaker_lite.bin import run
from wespeaker_lite.data.corpora import ListOptions, check_corpus, make_lists


def main() -> None:
    """Parse the arguments and call `wespeaker_lite.data.corpora`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus-dir", required=True, help="train/ and/or test/, or one tree or data dir; trials*")
    parser.add_argument("--data-dir", help="where train/, test/ and trials/ are written; without it, only check")
    parser.add_argument("--seed", type=int, default=ListOptions.seed)
    parser.add_argument("--test-share", type=float, default=ListOptions.test_share, help="of speakers, without test/")
    parser.add_argument("--max-targets", type=int, help="at most so many target trials (default: all)")
    args = parser.parse_args()
    options = ListOptions(seed=args.seed, test_share=args.test_share, max_targets=args.max_targets)
    if args.data_dir:
        make_lists(args.corpus_dir, args.data_dir, options)
    else:
        check_corpus(args.corpus_dir, options)


if __name__ == "__main__":
    run(main)
