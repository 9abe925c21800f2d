"""A pool of corpora: folders in one folder. pool.yaml defines training and test sets, and how much of each is used."""

import logging
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import reduce
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wespeaker_lite.audio.reading import audio_seconds
from wespeaker_lite.audio.speed import unperturbed
from wespeaker_lite.core.config import bounded, from_mapping, read_yaml
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.files import write_text
from wespeaker_lite.corpora.clips import Clips, read_clips
from wespeaker_lite.corpora.corpus_set import CorpusSet, size_of, write_data_dir
from wespeaker_lite.corpora.lists import (
    ListOptions,
    check_test_set,
    made_trials,
    read_set,
    trial_files,
    write_lists,
)
from wespeaker_lite.corpora.unlabelled import read_unlabelled
from wespeaker_lite.kaldi.tables import sorted_keys, spk2utt_of
from wespeaker_lite.kaldi.trials import Trials, check_known, match_ids, read_trials

log = logging.getLogger(__name__)

SETS = "test_sets"  # a file of lines `set list`; the first list of a set is its main one


@dataclass(frozen=True)
class PoolEntry:
    """A set of a pool.

    Attributes:
        folder: folder in the pool. By default, the set's name.
        corpus: prefix of its ids. By default, the set's name. Sets of one corpus must not share speakers.
        layout: `speakers`, `clips` for files SPEAKER-*.opus, of which one per speaker is used, or `unlabelled` for
            training data whose speakers are unknown.
        max_utterances: limit for each speaker, or for all unlabelled speech of the set; 0 for no limit. The utterances
            are drawn from the seed.
        max_seconds: the same as a limit of seconds.
        trials: trial lists, relative to the pool. By default, those in the set's folder, or else lists are made.
    """

    folder: str = ""
    corpus: str = ""
    layout: Literal["speakers", "clips", "unlabelled"] = "speakers"
    max_utterances: int = bounded(0, 0, 10**10)
    max_seconds: float = bounded(0.0, 0, 10**10)
    trials: tuple[str, ...] = ()


@dataclass(frozen=True)
class PoolConfig:
    """The content of pool.yaml: training and test sets by name."""

    train: dict[str, Any] = field(default_factory=dict)
    test: dict[str, Any] = field(default_factory=dict)


def read_pool(
    pool: str | Path, config: str | Path, options: ListOptions
) -> tuple[dict[str, CorpusSet], dict[str, dict[str, Trials]]]:
    """Read a pool: its sets `train` and `test`, if it has them, and the trial lists of each test set by name.

    Ids begin with the corpus: utterance `CORPUS-speaker-utterance` of `CORPUS-speaker`. Names of lists end with the
    name of their set: `trials_O_SET`.

    Raises:
        InputError: as the readers of corpora, or if a speaker is in a training and in a test set of one corpus.
    """
    pool, config = Path(pool), Path(config)
    given = from_mapping(PoolConfig, read_yaml(config), str(config))
    if not given.train and not given.test:
        raise InputError(f"{config}: names no set; expected train: and test:, with a folder of the pool under each")
    sets: dict[str, CorpusSet] = {}
    lists: dict[str, dict[str, Trials]] = {}
    for role in ("train", "test"):
        parts = {}
        for name, mapping in getattr(given, role).items():
            where = f"{config}: {role}.{name}"
            entry = _entry(name, mapping, where)
            if role == "train" and entry.trials:
                raise InputError(f"{where}: trials are of test sets")
            part = _read(pool, entry, options)
            if role == "test":
                check_test_set(part, where)
                lists[name] = {f"{kind}_{name}": trials for kind, trials in _lists(pool, entry, part, options).items()}
            parts[name] = _with_prefix(part, entry.corpus)
            log.info("%s: %s", where, size_of(part))
        if parts:
            sets[role] = reduce(lambda one, other: one.joined(other), parts.values())
    shared = set.intersection(*(set(part.utt2spk.values()) for part in sets.values())) if len(sets) == 2 else set()
    if shared:
        raise InputError(
            f"{config}: speaker {min(shared)!r} is in a training and in a test set ({len(shared)} such); "
            "take the set out of train:, or remove these speakers from one of them"
        )
    return sets, lists


def _entry(name: str, mapping: Any, where: str) -> PoolEntry:
    entry = from_mapping(PoolEntry, {} if mapping is None else mapping, where)
    entry = replace(entry, folder=entry.folder or name, corpus=entry.corpus or name)
    for word in (name, entry.corpus):
        if not re.fullmatch(r"\w+", word, re.ASCII) or unperturbed(f"{word}-") != f"{word}-":
            raise InputError(
                f"{where}: {word!r} is part of ids: take letters, digits and _, and nothing like sp0 or sp1"
            )
    return entry


def _read(pool: Path, entry: PoolEntry, options: ListOptions) -> CorpusSet:
    folder = pool / entry.folder
    readers = {
        "speakers": read_set,
        "clips": lambda folder: read_clips(Clips(str(folder))),
        "unlabelled": read_unlabelled,
    }
    part = readers[entry.layout](folder)
    if not entry.max_utterances and not entry.max_seconds:
        return part
    kept: set[str] = set()
    together = {entry.corpus: sorted_keys(part.utt2spk)} if entry.layout == "unlabelled" else spk2utt_of(part.utt2spk)
    for speaker, utterances in together.items():
        # The draws of a speaker do not depend on other speakers, so that adding one does not change them.
        rng = np.random.default_rng((options.seed, zlib.crc32(speaker.encode())))
        drawn = rng.permutation(utterances).tolist()[: entry.max_utterances or None]
        kept.update(_up_to(drawn, entry.max_seconds, part) if entry.max_seconds else drawn)
    return part.of_utterances(kept)


def _up_to(utterances: list[str], seconds: float, part: CorpusSet) -> list[str]:
    """The first utterances, at least one, of at most `seconds` in all."""
    total, kept = 0.0, []
    for utterance in utterances:
        total += _seconds(utterance, part)
        if kept and total > seconds:
            break
        kept.append(utterance)
    return kept


def _seconds(utterance: str, part: CorpusSet) -> float:
    if part.segments:
        _, start, end = part.segments[utterance].split(" ")
        return float(end) - float(start)
    audio = part.wavs[utterance]
    if audio.endswith("|"):
        raise InputError(f"utterance {utterance!r} is a command of unknown length: use max_utterances instead")
    return audio_seconds(audio)


def _lists(pool: Path, entry: PoolEntry, part: CorpusSet, options: ListOptions) -> dict[str, Trials]:
    """The lists of a test set by kind, with ids of the pool. The first is the main list."""
    found = [pool / path for path in entry.trials] or trial_files(pool / entry.folder)
    if found and (entry.max_utterances or entry.max_seconds):
        raise InputError(f"{found[0]}: a set with max_utterances or max_seconds cannot have given trials")
    if len({path.name for path in found}) < len(found):
        raise InputError(f"{entry.folder}: two trial lists have one name; rename one")
    lists = {}
    for path in found:
        trials = match_ids(read_trials(path), set(part.utt2spk), part.aliases)
        check_known(trials, part.utt2spk)
        lists[path.name if path.name.startswith("trials") else f"trials_{path.name}"] = trials
    lists = lists or made_trials(part, options)
    prefix = f"{entry.corpus}-"
    return {
        name: replace(trials, enroll=[prefix + u for u in trials.enroll], test=[prefix + u for u in trials.test])
        for name, trials in sorted(lists.items(), key=lambda item: (item[0].endswith("_H"), item[0]))
    }


def _with_prefix(part: CorpusSet, corpus: str) -> CorpusSet:
    def renamed(table: Mapping[str, str], values: bool = False) -> dict[str, str]:
        return {f"{corpus}-{key}": f"{corpus}-{value}" if values else value for key, value in table.items()}

    return CorpusSet(
        wavs=renamed(part.wavs),
        utt2spk=renamed(part.utt2spk, values=True),
        segments=renamed(part.segments, values=True),
        spk2gender=renamed(part.spk2gender),
        spk2age=renamed(part.spk2age),
        sessions=renamed(part.sessions),
        unlabelled=frozenset(f"{corpus}-{placeholder}" for placeholder in part.unlabelled),
    )


def make_pool_lists(pool: str | Path, config: str | Path, data: str | Path, options: ListOptions) -> None:
    """Write `data/{train,test}`, `data/trials/<list>_<set>`, and `data/test_sets`: lines `set list`, main lists first.

    Raises:
        InputError: as `read_pool`, or if `data` has a set of an earlier pool that this pool does not have.
    """
    data = Path(data)
    sets, lists = read_pool(pool, config, options)
    stale = [name for name in ("train", "test") if name not in sets and (data / name).exists()]
    if stale:
        raise InputError(f"{data / stale[0]} is of another pool: {config} has no {stale[0]} set; remove it first")
    for name, part in sets.items():
        write_data_dir(data / name, part)
    named = {name: trials for of_set in lists.values() for name, trials in of_set.items()}
    earlier = (data / SETS).read_text().split()[1::2] if (data / SETS).exists() else []
    for name in set(earlier) - set(named):  # lists of sets that are no longer in the pool
        (data / "trials" / name).unlink(missing_ok=True)
    write_lists(data / "trials", named, options.seed)
    write_text(data / SETS, "".join(f"{name} {one}\n" for name, of_set in lists.items() for one in of_set))
