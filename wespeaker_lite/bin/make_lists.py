"""Make data dirs and trial lists of a corpus folder (trees or Kaldi data dirs), or only check it."""

import argparse

from wespeaker_lite.bin import run
from wespeaker_lite.corpora.clips import Clips
from wespeaker_lite.corpora.lists import ListOptions, check_corpus, make_lists
from wespeaker_lite.corpora.pool import make_pool_lists, read_pool


def main() -> None:
    """Parse the arguments and call `wespeaker_lite.corpora.lists`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--corpus-dir",
        required=True,
        help="folder with train/ or test/ or both, or one tree or data dir; trials* in it are used",
    )
    parser.add_argument(
        "--data-dir", help="folder to write train/, test/ and trials/ into; without it, the corpus is only checked"
    )
    parser.add_argument(
        "--seed", type=int, default=ListOptions.seed, help="seed of the random choices (default: %(default)s)"
    )
    parser.add_argument(
        "--test-share",
        type=float,
        default=ListOptions.test_share,
        help="share of test speakers, if there is no test/ (default: %(default)s)",
    )
    parser.add_argument("--max-targets", type=int, help="most target trials (default: all)")
    parser.add_argument(
        "--clips", help="folder of SPEAKER-*.flac (or other audio), one training utterance of each speaker"
    )
    parser.add_argument(
        "--clips-prefix", default=Clips.prefix, help="prefix of the ids of these speakers (default: %(default)s)"
    )
    parser.add_argument("--clips-speakers", type=int, help="number of speakers that --clips must have")
    parser.add_argument("--pool", metavar="YAML", help="file that names the sets of a pool of corpora")
    args = parser.parse_args()
    clips = Clips(args.clips, args.clips_prefix, args.clips_speakers) if args.clips else None
    options = ListOptions(args.seed, args.test_share, args.max_targets, clips)
    if args.pool:
        if args.data_dir:
            make_pool_lists(args.corpus_dir, args.pool, args.data_dir, options)
        else:
            read_pool(args.corpus_dir, args.pool, options)
    elif args.data_dir:
        make_lists(args.corpus_dir, args.data_dir, options)
    else:
        check_corpus(args.corpus_dir, options)


if __name__ == "__main__":
    run(main)
