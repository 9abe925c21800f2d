r"""Score trial lists: cosine, S-norm, AS-norm; EER and minDCF of each.

Example:
    python -m wespeaker_lite.bin.score --embeddings exp/x/embeddings/test/xvector.scp --trials data/x/trials/trials_O \
        --cohort exp/x/embeddings/train/xvector.scp --cohort-utt2spk data/x/train/utt2spk --out exp/x
"""

import argparse
from pathlib import Path

from wespeaker_lite.bin import run
from wespeaker_lite.errors import InputError
from wespeaker_lite.scoring.embeddings import read_cohort, read_embeddings
from wespeaker_lite.scoring.evaluate import SCORINGS, ScoringOptions, read_trial_lists, score_lists
from wespeaker_lite.scoring.results import read_cost, results_table, write_results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embeddings", required=True, metavar="SCP", help="embeddings of all utterances in the trials")
    parser.add_argument("--trials", required=True, nargs="+", action="extend", metavar="LIST", help="trial lists")
    parser.add_argument("--cohort", metavar="SCP", help="embeddings of the training set: mean to subtract, and cohort")
    parser.add_argument("--cohort-utt2spk", metavar="FILE", help="speakers of the cohort")
    parser.add_argument("--cohort-per", choices=("speaker", "utterance"), default="speaker", help="rows of the cohort")
    parser.add_argument("--scorings", default=" ".join(SCORINGS), help="which of: %(default)s")
    parser.add_argument("--top-n", type=int, default=300, help="AS-norm's adaptive cohort (default %(default)s)")
    parser.add_argument("--block-mb", type=float, default=64, help="working memory (default %(default)s MB)")
    parser.add_argument("--cost", metavar="JSON", help="params and macs_1s, to go into results.json")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="for scores/ and results.json")
    options = parser.parse_args()
    if options.cohort and options.cohort_per == "speaker" and not options.cohort_utt2spk:
        raise InputError("--cohort wants --cohort-utt2spk FILE, to average over speakers (or --cohort-per utterance)")

    scoring = ScoringOptions(tuple(options.scorings.split()), options.top_n, options.block_mb)
    cost = read_cost(options.cost) if options.cost else {}
    lists = read_trial_lists(options.trials)
    utt2spk = options.cohort_utt2spk if options.cohort_per == "speaker" else None
    cohort = read_cohort(options.cohort, utt2spk) if options.cohort else None
    trials = score_lists(read_embeddings(options.embeddings), cohort, lists, scoring, options.out)
    results = {"trials": trials, **cost}
    write_results(options.out / "results.json", results)
    print(results_table(results), end="")


if __name__ == "__main__":
    run(main)
