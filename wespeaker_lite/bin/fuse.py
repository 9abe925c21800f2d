r"""Fuse the scores of several experiments, which stage 6 has scored on the same lists.

The weights are trained on the trials on which stage 6 trains calibrations. So each experiment needs a scoring that ends
in _linear or _qmf, besides the one to be fused.

Example:
    python -m wespeaker_lite.bin.fuse --scoring asnorm --out exp/x/a_and_b exp/x/a exp/x/b
"""

import argparse

from wespeaker_lite.bin import run
from wespeaker_lite.report.tables import results_table
from wespeaker_lite.scoring.fusion import fuse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiments", nargs="+", metavar="EXP", help="folders of experiments")
    parser.add_argument("--scoring", default="asnorm", help="scoring whose scores are fused (default: %(default)s)")
    parser.add_argument("--prior", type=float, default=0.5, help="prior of a target trial (default: %(default)s)")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write scores/ and results.json into")
    options = parser.parse_args()
    results = fuse(options.experiments, options.scoring, options.out, options.prior)
    print(results_table(results), end="")


if __name__ == "__main__":
    run(main)
