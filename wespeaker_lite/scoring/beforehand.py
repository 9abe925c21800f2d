"""What would end the scoring with an error, told before the network is trained."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.kaldi.data_dir import unlabelled_speakers
from wespeaker_lite.kaldi.tables import read_table
from wespeaker_lite.kaldi.trials import Trials, check_classes, check_known, check_labels
from wespeaker_lite.recipe import trained_model
from wespeaker_lite.recipe.experiment import load
from wespeaker_lite.recipe.scoring_config import ScoringOptions
from wespeaker_lite.scoring.by_corpus import rows_by_corpus, smallest_cohort
from wespeaker_lite.scoring.evaluate import calibration_trials, read_trial_lists, without_unlabelled
from wespeaker_lite.scoring.plda import lda_dim

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What is to be scored: data dirs of the test set and of the cohort (None for cosines alone), and trial lists."""

    test: Path
    trials: Sequence[str]
    cohort: Path | None = None


def check_scoring(config: Path, plan: Plan) -> None:
    """Compare the section `scoring` of a resolved config with the utterances, speakers and trials that there are.

    Raises:
        InputError: where stage 6 or 7 would end with it, once the network is trained.
    """
    experiment = load(config)
    utt2spk = read_table(plan.test / "utt2spk")
    lists = read_trial_lists(plan.trials)
    for name, trials in lists.items():
        _check_list(name, trials, plan.test, utt2spk)
        check_labels(trials, utt2spk)
    if plan.cohort is None:
        return
    options = experiment.scoring
    speaker_of, _ = without_unlabelled(read_table(plan.cohort / "utt2spk"), unlabelled_speakers(plan.cohort))
    if (options.mean, options.cohort) != ("all", "all"):
        rows_by_corpus(speaker_of.values())
    if "corpus" in (options.mean, options.cohort):
        rows_by_corpus(utt2spk)
    _check_cohort(options, set(speaker_of.values()), plan.cohort)
    if options.first("plda"):
        size = trained_model.build_model(to_mapping(experiment)).embed_dim
        lda_dim(len(speaker_of), len(set(speaker_of.values())), size, options.plda)
    if options.first("linear", "qmf"):
        trials = calibration_trials(options.calibration, speaker_of)
        _check_list("calibration", trials, plan.cohort, speaker_of)


def _check_list(name: str, trials: Trials, data: Path, utt2spk: Mapping[str, str]) -> None:
    """Check that a list can be scored and measured with the utterances of a data dir."""
    try:
        check_known(trials, utt2spk)
    except InputError as error:
        left_out = data / "left_out"
        why = f"; {left_out} has those that stage 2 left out: take their trials out" if left_out.exists() else ""
        raise InputError(f"{error}: {data}/utt2spk does not list it{why}") from error
    check_classes(trials, name)


def _check_cohort(options: ScoringOptions, speakers: Collection[str], data: Path) -> None:
    """Check that scores against the cohort can have a spread, which takes two; and warn where it is small."""
    normed, calibrated = options.first("snorm", "asnorm", "qmf"), options.first("linear", "qmf")
    members = smallest_cohort(speakers, options.cohort) if normed else len(speakers)
    # Utterances that calibration learns from are not compared with their own speakers.
    needed = 2 + bool(calibrated) if normed else 1
    if members < needed:
        raise InputError(
            f"{normed} needs a cohort of {needed} speakers, and {data} has {members}: leave it out of scoring.scorings"
        )
    if options.first("asnorm", "qmf") and members < options.top_n:
        log.warning("scoring.top_n is %d, and the cohort %s has %d speakers: all count", options.top_n, data, members)
