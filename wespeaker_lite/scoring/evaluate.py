"""Score files and results.json from embeddings and trial lists."""

import logging
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.extraction.embeddings import Cohort, Embeddings, cohort_of, read_cohort, read_embeddings
from wespeaker_lite.kaldi.tables import read_table
from wespeaker_lite.kaldi.trials import Trials, check_known, read_trials
from wespeaker_lite.recipe.scoring_config import CalibrationOptions, ScoringOptions
from wespeaker_lite.recipe.scorings import is_calibrated
from wespeaker_lite.scoring.backend import Backend, Training, select_used
from wespeaker_lite.scoring.by_corpus import smallest_cohort
from wespeaker_lite.scoring.calibration import draw_calibration_trials
from wespeaker_lite.scoring.results import summarise
from wespeaker_lite.scoring.scores import CALIBRATION_LIST, score_file, write_scores
from wespeaker_lite.scoring.verification import write_verification

log = logging.getLogger(__name__)


def read_trial_lists(paths: Iterable[str | Path]) -> dict[str, Trials]:
    """Read trial lists: file name -> trials.

    Raises:
        InputError: for a bad list, or two lists with the same name, whose scores would overwrite each other.
    """
    lists: dict[str, Trials] = {}
    for path in map(Path, paths):
        if path.name in lists:
            raise InputError(f"{path}: another list is called {path.name!r} too; rename one")
        if path.name == CALIBRATION_LIST:
            raise InputError(f"{path}: scores of calibration's own trials have the name {path.name!r}; rename the list")
        lists[path.name] = read_trials(path)
    return lists


def calibration_trials(options: CalibrationOptions, utt2spk: Mapping[str, str]) -> Trials:
    """The trials that calibrations learn from: those of the list that is named, or drawn from the training set's.

    Raises:
        InputError: as `read_trials` and `draw_calibration_trials`.
    """
    return read_trials(options.list) if options.list else draw_calibration_trials(utt2spk, options)


def read_training(
    scp: str | Path,
    utt2spk: str | Path | None,
    utt2num_frames: str | Path | None,
    options: ScoringOptions,
    spk2unlabelled: str | Path | None = None,
) -> tuple[Cohort | None, Training | None]:
    """Read the cohort, of speakers or without `utt2spk` of utterances, and the training data that the scorings need.

    For PLDA that is the whole set, for calibration the utterances of its trials. Unlabelled utterances, whose speakers
    are in `spk2unlabelled`, are not used. If all are unlabelled, there is no cohort.

    Raises:
        InputError: as `read_cohort`, `read_embeddings`, `read_trials` and `draw_calibration_trials`.
    """
    speaker_of, trials = read_table(utt2spk) if utt2spk else None, None
    unlabelled: set[str] = set()
    if speaker_of and spk2unlabelled:
        speaker_of, unlabelled = without_unlabelled(speaker_of, read_table(spk2unlabelled))
        log.info("%d unlabelled utterances are not in the cohort", len(unlabelled))
        if not speaker_of:
            log.warning("%s: all utterances are unlabelled, so there is no cohort", utt2spk)
            return None, None
    calibrated, plda = options.first("linear", "qmf"), options.first("plda")
    if speaker_of is None or not (calibrated or plda):
        return read_cohort(scp, speaker_of, unlabelled), None
    if calibrated:
        trials = calibration_trials(options.calibration, speaker_of)
    whole_set = set(speaker_of) if unlabelled else None
    only = whole_set if plda else {*trials.enroll, *trials.test}
    embeddings = read_embeddings(scp, utt2num_frames if options.first("qmf") else None, only)
    whole = cohort_of(zip(embeddings.index, embeddings.vectors, strict=True), speaker_of) if plda else None
    return whole or read_cohort(scp, speaker_of, unlabelled), Training(embeddings, speaker_of, trials)


def without_unlabelled(speaker_of: Mapping[str, str], placeholders: Collection[str]) -> tuple[dict[str, str], set[str]]:
    """Split utterance -> speaker into this mapping for labelled utterances, and the unlabelled utterances."""
    labelled = {utterance: speaker for utterance, speaker in speaker_of.items() if speaker not in placeholders}
    return labelled, speaker_of.keys() - labelled.keys()


def counts(
    lists: Mapping[str, Trials], left_out: Iterable[Path], cohort: Cohort | None, options: ScoringOptions
) -> dict[str, Any]:
    """Count missing utterances and odd trials, for results.json. A key exists only if there is something to report.

    `left_out`: utterances that could not be read, by data dir. `odd_trials`: duplicates, and trials of an utterance
    with itself. `small_cohort`: the size of the cohort, if AS-norm needs more.
    """
    missing = {path.parent.name: len(path.read_text(encoding="utf-8").splitlines()) for path in left_out}
    odd = {
        name: {"duplicates": trials.duplicates, "of_itself": trials.of_itself}
        for name, trials in lists.items()
        if trials.duplicates or trials.of_itself
    }
    found: dict[str, Any] = {"left_out": missing} if missing else {}
    if odd:
        found["odd_trials"] = odd
    if cohort and any("asnorm" in scoring for scoring in options.scorings):
        members = smallest_cohort(cohort.embeddings.index, options.cohort)
        if members < options.top_n:
            found["small_cohort"] = {"members": members, "top_n": options.top_n}
    return found


def score_lists(
    embeddings: Embeddings,
    cohort: Cohort | None,
    lists: Mapping[str, Trials],
    options: ScoringOptions,
    out: Path,
    training: Training | None = None,
    weights: str = "",
) -> dict[str, dict[str, Any]]:
    """Score every list with every scoring, write `out`/scores/<list>.<scoring>.score, and return the metrics.

    With a cohort, the mean of its utterances is subtracted from all embeddings. Metrics are computed from the rounded
    scores. With a calibrated scoring, the scores of its training trials are written too, as the list `calibration`: a
    fusion of several systems is trained on them. `weights`: the digest of the network, for verify.json.

    Raises:
        InputError: if an utterance of a trial has no embedding, a scoring needs data that are not given, or the metrics
            of a list cannot be computed.
    """
    for trials in lists.values():
        check_known(trials, embeddings.index)
    backend = Backend(options, cohort, training)
    prepared = backend.prepare(select_used(embeddings, lists.values()))
    if any(map(is_calibrated, options.scorings)):
        for scoring, scores in backend.calibrate():
            write_scores(score_file(out, CALIBRATION_LIST, scoring), training.trials, scores)
    results: dict[str, dict[str, Any]] = {}
    for name, trials in lists.items():
        log.info("%s: %d trials", name, len(trials))
        results[name] = {}
        for scoring, scores in backend.all_scores(prepared, trials):
            results[name][scoring] = summarise(trials, scores, f"{name} {scoring}", is_calibrated(scoring))
            write_scores(score_file(out, name, scoring), trials, scores)
    if options.mean == "corpus":  # other recordings have no corpus, so these thresholds do not apply to them
        write_verification(out, backend.cohort, None, {}, weights)
    else:
        write_verification(out, backend.cohort, backend.calibrations.get("cosine_linear"), results, weights)
    return results
