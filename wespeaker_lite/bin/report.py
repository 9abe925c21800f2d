"""Write the report of a scored experiment: metrics with 95 % intervals, DET curves, score histograms.

Example:
    python -m wespeaker_lite.bin.report --out exp/x --utt2spk data/x/test/utt2spk
"""

import argparse

from wespeaker_lite.bin import run
from wespeaker_lite.kaldi.tables import read_table
from wespeaker_lite.report.report import BootstrapOptions, write_report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, metavar="DIR", help="experiment; report/ is written into it")
    parser.add_argument(
        "--utt2spk", metavar="FILE", help="utterance and speaker of the test set; without it there are no intervals"
    )
    parser.add_argument(
        "--replicates", type=int, default=1000, help="replicates of the bootstrap (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap (default: %(default)s)")
    parser.add_argument("--attention", metavar="JSON", help=".json of draw_attention, to include in the report")
    options = parser.parse_args()

    utt2spk = read_table(options.utt2spk) if options.utt2spk else None
    bootstrap = BootstrapOptions(utt2spk, options.replicates, options.seed)
    print(write_report(options.out, bootstrap, options.attention), end="")


if __name__ == "__main__":
    run(main)
