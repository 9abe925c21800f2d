r"""Score trial lists by cosine, S-norm, AS-norm or PLDA, with or without calibration; print EER, minDCF, actDCF, Cllr.

Example:
    python -m wespeaker_lite.bin.score --embeddings exp/x/embeddings/test/xvector.scp --trials data/x/trials/trials_O \
        --frames data/x/test/utt2num_frames --cohort exp/x/embeddings/train/xvector.scp \
        --cohort-utt2spk data/x/train/utt2spk --cohort-frames data/x/train/utt2num_frames --out exp/x
"""

import argparse
from pathlib import Path

from wespeaker_lite.bin import run
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.extraction.embeddings import read_embeddings
from wespeaker_lite.recipe.scorings import SCORINGS
from wespeaker_lite.report.tables import results_table, show_counts
from wespeaker_lite.scoring.backend import read_options
from wespeaker_lite.scoring.evaluate import counts, read_training, read_trial_lists, score_lists
from wespeaker_lite.scoring.results import mean_of_lists, read_cost, write_results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embeddings", required=True, metavar="SCP", help="embeddings of all utterances in the trials")
    parser.add_argument("--frames", metavar="FILE", help="utt2num_frames of these utterances, for QMF")
    parser.add_argument("--trials", required=True, nargs="+", action="extend", metavar="LIST", help="trial lists")
    parser.add_argument("--mean", nargs="+", default=[], metavar="NAME", help="lists over which metrics are averaged")
    parser.add_argument(
        "--cohort",
        metavar="SCP",
        help="embeddings of the training set: their mean is subtracted, and they are the cohort",
    )
    parser.add_argument("--cohort-utt2spk", metavar="FILE", help="utterance and speaker of the cohort")
    parser.add_argument(
        "--cohort-unlabelled", metavar="FILE", help="spk2unlabelled of the cohort: these utterances are not used"
    )
    parser.add_argument("--cohort-frames", metavar="FILE", help="utt2num_frames of the cohort, for QMF")
    parser.add_argument(
        "--cohort-per",
        choices=("speaker", "utterance"),
        default="speaker",
        help="whether the cohort has a vector for each speaker (default) or for each utterance",
    )
    parser.add_argument(
        "--config", metavar="YAML", help="config.yaml of an experiment, whose section `scoring` is used"
    )
    parser.add_argument("--scorings", help=f"scorings, instead of those of the config; known: {' '.join(SCORINGS)}")
    parser.add_argument(
        "--top-n", type=int, help="size of the adaptive cohort of AS-norm, instead of that of the config"
    )
    parser.add_argument("--block-mb", type=float, help="working memory in MB, instead of that of the config")
    parser.add_argument(
        "--left-out",
        nargs="+",
        default=[],
        action="extend",
        type=Path,
        metavar="FILE",
        help="lists of utterances that were left out, for their number",
    )
    parser.add_argument("--model", metavar="FILE", help="final.pt that made the embeddings; verify.json will name it")
    parser.add_argument("--cost", metavar="JSON", help="parameters and MACs (from bin.cost) for results.json")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder to write scores/ and results.json into"
    )
    options = parser.parse_args()
    if options.cohort and options.cohort_per == "speaker" and not options.cohort_utt2spk:
        raise InputError("--cohort needs --cohort-utt2spk FILE, to average over speakers (or --cohort-per utterance)")

    scoring = read_options(
        options.config,
        scorings=tuple(options.scorings.split()) if options.scorings is not None else None,
        top_n=options.top_n,
        block_mb=options.block_mb,
    )
    cost = read_cost(options.cost) if options.cost else {}
    (options.out / ".score.stamp").unlink(missing_ok=True)  # what it says of this folder does not hold any more
    lists = read_trial_lists(options.trials)
    utt2spk = options.cohort_utt2spk if options.cohort_per == "speaker" else None
    cohort, training = None, None
    if options.cohort:
        cohort, training = read_training(
            options.cohort, utt2spk, options.cohort_frames, scoring, options.cohort_unlabelled
        )
    embeddings = read_embeddings(options.embeddings, options.frames)
    trials = score_lists(embeddings, cohort, lists, scoring, options.out, training, _weights_of(options.model))
    results = {"trials": trials, **cost, **counts(lists, options.left_out, cohort, scoring)}
    if options.mean:
        results["mean"] = mean_of_lists(trials, options.mean)
    write_results(options.out / "results.json", results)
    print(*show_counts(results), results_table(results), sep="\n", end="")


def _weights_of(model: str | None) -> str:
    if model is None:
        return ""
    from wespeaker_lite.recipe import trained_model  # here, since it imports torch

    return trained_model.digest(trained_model.load(model).model)


if __name__ == "__main__":
    run(main)
