"""Make data dirs and trial lists from users' corpora: trees of audio files, or Kaldi data dirs."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.corpora.clips import Clips, read_clips
from wespeaker_lite.corpora.corpus_set import CorpusSet, size_of, write_data_dir
from wespeaker_lite.corpora.kaldi_dirs import read_kaldi_dir
from wespeaker_lite.corpora.trees import read_tree
from wespeaker_lite.corpora.unlabelled import read_unlabelled
from wespeaker_lite.kaldi.tables import sorted_keys
from wespeaker_lite.kaldi.trials import (
    Trials,
    check_known,
    make_trials,
    match_ids,
    read_trials,
    write_trials,
)

log = logging.getLogger(__name__)

SETS = ("train", "test")
MADE_TRIALS = ("trials_O", "trials_H")


@dataclass(frozen=True)
class ListOptions:
    """How to make lists that the corpus does not have, and what to add to its training set."""

    seed: int = 1
    test_share: float = 0.25  # share of speakers for the test set, if the corpus has no train/ and test/
    max_targets: int | None = None  # limit of target trials
    clips: Clips | None = None


def read_set(folder: Path) -> CorpusSet:
    """Read a folder: as a Kaldi data dir if it has a wav.scp, else as a tree `speaker/[session/]utterance.flac`."""
    return read_kaldi_dir(folder) if (folder / "wav.scp").exists() else read_tree(folder)


def read_corpus(folder: str | Path, options: ListOptions) -> tuple[dict[str, CorpusSet], list[Trials]]:
    """Read the sets and the trial lists of a corpus folder.

    If the folder has a train/ or a test/, these are the sets. Otherwise the speakers are split: those in the trial
    lists are the test set, or, without lists, a random share. There is no training set if the lists have all speakers.
    Trial lists are the files `trials*` in the folder, or else in its test/. Their ids are matched with those of the
    set. Clips of additional speakers are added to the training set, and so is the speech in a folder unlabelled/ beside
    train/ or test/.

    Raises:
        InputError: as the readers, if a trial has an unknown utterance, if there are too few speakers to split, or if
            unlabelled/ is not beside train/ or test/.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found = trial_files(folder) or trial_files(folder / "test")
    lists = [read_trials(path) for path in found]
    sets = {name: read_set(folder / name) for name in SETS if (folder / name).is_dir()}
    unlabelled = folder / "unlabelled"
    if unlabelled.is_dir() and not sets:
        raise InputError(f"{unlabelled}: put the speakers into {folder / 'train'}, beside it, or rename this folder")
    whole = None if sets else read_set(folder)
    target = whole or sets.get("test")
    if lists and target is None:
        raise InputError(f"{found[0]}: trials are of a test set, but there is no {folder}/test")
    lists = [match_ids(trials, set(target.utt2spk), target.aliases) for trials in lists]
    for trials in lists:
        check_known(trials, target.utt2spk)
    sets = sets or _split(folder, whole, lists, options)
    added = [read_clips(options.clips)] if options.clips else []
    if "test" in sets:
        check_test_set(sets["test"], folder)
    if unlabelled.is_dir():
        added.append(read_unlabelled(unlabelled, "unlabelled-"))
    for part in added:
        sets["train"] = sets["train"].joined(part) if "train" in sets else part
    return sets, lists


def trial_files(folder: Path) -> list[Path]:
    """The trial lists in a folder: files `trials*`, in byte order."""
    return sorted(path for path in folder.glob("trials*") if path.is_file())


def _split(folder: Path, whole: CorpusSet, lists: list[Trials], options: ListOptions) -> dict[str, CorpusSet]:
    speakers = sorted_keys(set(whole.utt2spk.values()) - whole.unlabelled)
    if lists:
        test = {whole.utt2spk[utterance] for trials in lists for utterance in (*trials.enroll, *trials.test)}
        if len(test) == len(speakers):
            log.info("%s: the trials name every speaker, so all are tested and there is no training set", folder)
            return {"test": whole}
    else:
        count = max(2, round(options.test_share * len(speakers)))
        test = set(np.random.default_rng(options.seed).permutation(speakers)[:count].tolist())
    if len(speakers) - len(test) < 2:
        raise InputError(f"{folder}: {len(speakers)} speakers are too few to split; put a test/ (and a train/) into it")
    others = set(whole.utt2spk.values()) - test
    return {"train": whole.of_speakers(others), "test": whole.of_speakers(test)}


def check_test_set(part: CorpusSet, where: str | Path) -> None:
    """Check that all utterances of a test set are labelled.

    Raises:
        InputError: naming one that is not.
    """
    if part.unlabelled:
        raise InputError(f"{where}: {min(part.unlabelled)!r} is unlabelled: trials need speakers, so use it in train")


def check_corpus(folder: str | Path, options: ListOptions) -> None:
    """Read a corpus folder and log its sets and lists, without writing anything.

    Raises:
        InputError: as `read_corpus`.
    """
    sets, lists = read_corpus(folder, options)
    for name, part in sets.items():
        log.info("%s: %s has %s", folder, name, size_of(part))
    log.info(
        "%s: trial lists: %s",
        folder,
        " ".join(Path(trials.path).name for trials in lists) or "none, stage 1 makes them",
    )


def make_lists(corpus: str | Path, data: str | Path, options: ListOptions) -> None:
    """Write Kaldi data dirs `data/{train,test}` and trial lists `data/trials/<name>` of the folder `corpus`.

    If the corpus has no trial lists, `trials_O` and, if the sex of speakers is known, `trials_H` are made from a seed.
    """
    data = Path(data)
    sets, lists = read_corpus(corpus, options)
    stale = [name for name in SETS if name not in sets and (data / name).exists()]
    if stale:
        raise InputError(f"{data / stale[0]} is of another corpus: {corpus} has no {stale[0]} set; remove it first")
    _warn_of_overlap(sets)
    named = {Path(trials.path).name: trials for trials in lists}
    if "test" in sets:
        named = named or made_trials(sets["test"], options)
    for name, part in sets.items():
        write_data_dir(data / name, part)
    for name in MADE_TRIALS:
        if name not in named:  # from an earlier run, with other utterances
            (data / "trials" / name).unlink(missing_ok=True)
    write_lists(data / "trials", named, options.seed)


def write_lists(folder: Path, named: Mapping[str, Trials], seed: int) -> None:
    """Write trial lists, and log their origin."""
    for name, trials in named.items():
        write_trials(folder / name, trials)
        origin = f"from {trials.path}" if trials.path else f"made by seed {seed}"
        log.info("%s: %d trials, %d of them targets, %s", name, len(trials), trials.labels.sum(), origin)


def made_trials(test: CorpusSet, options: ListOptions) -> dict[str, Trials]:
    """Make the lists of a test set by `make_trials`. Targets are across sessions if any speaker has two sessions."""
    speakers_by_session = set(zip(test.sessions.values(), (test.utt2spk[u] for u in test.sessions), strict=True))
    across = len(speakers_by_session) > len(set(test.utt2spk.values()))
    if test.sessions and not across:
        log.warning("no speaker of the test set has two sessions: targets are within a session")
    return make_trials(
        test.utt2spk,
        options.seed,
        spk2gender=test.spk2gender or None,
        spk2age=test.spk2age or None,
        session_of=test.sessions if across else None,
        max_targets=options.max_targets,
    )


def _warn_of_overlap(sets: Mapping[str, CorpusSet]) -> None:
    speakers = [set(part.utt2spk.values()) for part in sets.values()]
    shared = set.intersection(*speakers) if len(speakers) > 1 else set()
    if shared:
        log.warning(
            "%d speakers are in train and in test, such as %r: results will look too good", len(shared), min(shared)
        )
