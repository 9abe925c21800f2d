r"""Compare systems on the same trials, in Markdown tables with 95 % intervals by bootstrap over speakers.

Example:
    python -m wespeaker_lite.bin.compare --utt2spk data/x/test/utt2spk --trials trials_O trials_H --scoring cosine \
        --row teacher=exp/t --row plain=exp/a_s0,exp/a_s1,exp/a_s2 --row kd=exp/k_s0,exp/k_s1,exp/k_s2 --baseline plain
    python -m wespeaker_lite.bin.compare --utt2spk data/x/test/utt2spk --trials trials_O --baseline cosine \
        --row cosine=exp/a --row AS-norm:asnorm=exp/a --row QMF:asnorm_qmf=exp/a --row PLDA:plda=exp/a
"""

import argparse

from wespeaker_lite.bin import run
from wespeaker_lite.kaldi.tables import read_table
from wespeaker_lite.report.compare import Comparison, compare, parse_system
from wespeaker_lite.report.report import BootstrapOptions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--row",
        required=True,
        action="append",
        metavar="NAME[:SCORING]=EXP[,EXP]",
        help="a system: its experiments, one per seed",
    )
    parser.add_argument(
        "--trials", required=True, nargs="+", action="extend", metavar="NAME", help="trial lists that all rows have"
    )
    parser.add_argument(
        "--mean",
        nargs="+",
        default=[],
        metavar="NAME",
        help="also print the mean over these lists, one of each test set",
    )
    parser.add_argument(
        "--draw-seeds",
        action="store_true",
        help="the bootstrap also draws seeds of training, so that intervals cover both",
    )
    parser.add_argument("--utt2spk", required=True, metavar="FILE", help="utterance and speaker of the test set")
    parser.add_argument("--scoring", default="cosine", help="scoring of rows without one (default: %(default)s)")
    parser.add_argument(
        "--baseline", metavar="NAME", help="row with which the others are compared (default: no comparison)"
    )
    parser.add_argument(
        "--replicates", type=int, default=1000, help="replicates of the bootstrap (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap (default: %(default)s)")
    options = parser.parse_args()

    bootstrap = BootstrapOptions(read_table(options.utt2spk), options.replicates, options.seed)
    systems = [parse_system(row) for row in options.row]
    comparison = Comparison(
        tuple(options.trials), options.scoring, options.baseline, tuple(options.mean), options.draw_seeds
    )
    print(compare(systems, comparison, bootstrap), end="")


if __name__ == "__main__":
    run(main)
