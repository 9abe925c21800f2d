"""Trial lists: pairs of an enrolment and a test utterance, and whether both are of the same speaker."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.files import write_text
from wespeaker_lite.kaldi.tables import sorted_keys

log = logging.getLogger(__name__)

KALDI_LABELS = {"target": True, "nontarget": False}
VOXCELEB_LABELS = {"1": True, "0": False}
AUDIO_SUFFIXES = {"wav", "flac", "ogg", "opus", "mp3", "m4a", "aac", "sph"}
# The separators of ids, and the characters that `corpora.pool` replaces in the names of speakers.
ONE_SEPARATOR = str.maketrans(dict.fromkeys("/_" + "".join(map(chr, range(ord(" "), ord("-")))), "-"))
CHILD_BELOW, ADULT_FROM = 13, 18  # years: children, youths and adults are three groups


@dataclass(frozen=True)
class Trials:
    """Trials in the order of their file: line n has `enroll[n - 1]`, `test[n - 1]` and `labels[n - 1]`."""

    enroll: list[str]
    test: list[str]
    labels: np.ndarray  # (trials,), True for a target
    path: str = ""  # of the file that they were read from, for messages
    duplicates: int = 0  # lines that repeat the pair of an earlier line, in either order
    of_itself: int = 0  # lines that compare an utterance with itself

    def __len__(self) -> int:
        return len(self.enroll)


def read_trials(path: str | Path) -> Trials:
    """Read a list in Kaldi's format, `enroll test target|nontarget`, or in VoxCeleb's, `1|0 enroll test`.

    The first line determines the format. Repeated trials and trials of an utterance with itself are kept, counted, and
    a warning is logged.

    Raises:
        InputError: naming file and line, if a line has another format or label, a pair is both a target and a
            nontarget, or an utterance with itself is a nontarget. Also for an empty file.
    """
    rows = read_rows(path)
    first = rows[0].split()
    is_kaldi = len(first) == 3 and first[2] in KALDI_LABELS
    columns, known = ((2, 0, 1), KALDI_LABELS) if is_kaldi else ((0, 1, 2), VOXCELEB_LABELS)
    fields = " ".join(rows).split()  # all lines at once is ten times faster than line by line
    labels, enroll, test = (fields[column::3] for column in columns)
    triples = map(" ".join, zip(*[iter(fields)] * 3, strict=False))
    in_threes = all(row == triple or len(row.split()) == 3 for row, triple in zip(rows, triples, strict=False))
    if len(fields) != 3 * len(rows) or not in_threes or not known.keys() >= set(labels):
        raise InputError(_first_bad_line(path, rows, columns[0], known))
    duplicates = _count_duplicates(path, enroll, test, labels)
    is_target = [known[label] for label in labels]
    of_itself = [number for number, (a, b) in enumerate(zip(enroll, test, strict=True)) if a == b]
    for number in of_itself:
        if not is_target[number]:
            raise InputError(
                f"{path}:{number + 1}: {enroll[number]!r} compared with itself is labelled nontarget; fix the label"
            )
    if duplicates or of_itself:
        log.warning("%s: %d duplicate trials, %d of an utterance with itself", path, duplicates, len(of_itself))
    shared = {utterance: utterance for utterance in enroll + test}  # one string for all mentions of an utterance
    return Trials(
        [shared[utterance] for utterance in enroll],
        [shared[utterance] for utterance in test],
        np.array(is_target),
        str(path),
        duplicates,
        len(of_itself),
    )


def _count_duplicates(path: str | Path, enroll: Sequence[str], test: Sequence[str], labels: Sequence[str]) -> int:
    """Count repeated pairs of utterances, in either order. Check that none is both a target and a nontarget."""
    pairs = [(a, b) if a < b else (b, a) for a, b in zip(enroll, test, strict=True)]
    first = labels[0]
    some = {pair for pair, label in zip(pairs, labels, strict=True) if label == first}
    others = {pair for pair, label in zip(pairs, labels, strict=True) if label != first}
    if some.isdisjoint(others):
        return len(pairs) - len(some) - len(others)
    both = some & others
    number, pair = next((n, pair) for n, pair in enumerate(pairs) if pair in both)
    other = next(n for n in range(number + 1, len(pairs)) if pairs[n] == pair and labels[n] != labels[number])
    raise InputError(f"{path}: lines {number + 1} and {other + 1} contradict each other on {' and '.join(pair)}")


def read_rows(path: str | Path) -> list[str]:
    """Read the lines of a text file, without newlines.

    Raises:
        InputError: if the file is missing, empty, or not UTF-8.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text: {error}") from error
    if not text:
        raise InputError(f"{path}: the file is empty")
    return text.removesuffix("\n").split("\n")


def _first_bad_line(path: str | Path, rows: Sequence[str], column: int, known: Mapping[str, bool]) -> str:
    fields = (row.split() for row in rows)
    number = next(n for n, row in enumerate(fields, start=1) if len(row) != 3 or row[column] not in known)
    form = "'enroll test target|nontarget'" if column else "'1|0 enroll test' or 'enroll test target|nontarget'"
    return f"{path}:{number}: expected {form}, found {' '.join(rows[number - 1].split())!r}"


def write_trials(path: str | Path, trials: Trials) -> None:
    """Write a list in Kaldi's format. It appears whole or not at all."""
    names = ("nontarget", "target")
    rows = zip(trials.enroll, trials.test, trials.labels.tolist(), strict=True)
    write_text(path, "".join(f"{enroll} {test} {names[label]}\n" for enroll, test, label in rows))


def match_ids(trials: Trials, keys: Collection[str], aliases: Mapping[str, str] | None = None) -> Trials:
    """Replace the utterance ids of trials by the matching keys of the data. Ids without a match stay as they are.

    `aliases` (other name -> key) are tried first. Then `id10001/1zcIwhmdeo4/00001.wav`, `id10001/1zcIwhmdeo4/00001` and
    `id10001-1zcIwhmdeo4-00001` count as the same.

    Raises:
        InputError: if an id matches several keys.
    """
    keys, aliases = set(keys), aliases or {}
    mentioned = dict.fromkeys(trials.enroll + trials.test)
    matched = {name: name if name in keys else aliases.get(name) for name in mentioned}
    if None in matched.values():
        by_plain_form: dict[str, list[str]] = {}
        for key in keys:
            by_plain_form.setdefault(_plain_form(key), []).append(key)
        for name in (name for name, key in matched.items() if key is None):
            candidates = by_plain_form.get(_plain_form(name), [name])
            if len(candidates) > 1:
                raise InputError(f"{trials.path}: {name!r} can be {' or '.join(map(repr, sorted(candidates)))}")
            matched[name] = candidates[0]
    return replace(trials, enroll=[matched[u] for u in trials.enroll], test=[matched[u] for u in trials.test])


def _plain_form(name: str) -> str:
    """An id without the suffix of an audio file, and with one kind of separator."""
    stem, _, suffix = name.rpartition(".")
    return (stem if suffix.lower() in AUDIO_SUFFIXES else name).translate(ONE_SEPARATOR)


def check_known(trials: Trials, keys: Collection[str]) -> None:
    """Check that every utterance of the trials is in the data.

    Raises:
        InputError: naming the first unknown utterance with file and line, and how many there are.
    """
    known = set(keys)
    unknown = {name for name in {*trials.enroll, *trials.test} if name not in known}
    if not unknown:
        return
    lines = [n for n, pair in enumerate(zip(trials.enroll, trials.test, strict=True)) if not unknown.isdisjoint(pair)]
    first = next(name for name in (trials.enroll[lines[0]], trials.test[lines[0]]) if name in unknown)
    raise InputError(
        f"{trials.path}:{lines[0] + 1}: utterance {first!r} is not in the data "
        f"({len(unknown)} unknown utterances in {len(lines)} of {len(trials)} trials)"
    )


def check_classes(trials: Trials, where: str) -> None:
    """Check that there are target and nontarget trials; `where` names the list.

    Raises:
        InputError: naming the class that is missing.
    """
    for missing, present in (("target", trials.labels.any()), ("nontarget", not trials.labels.all())):
        if not present:
            raise InputError(f"{where}: none of the {len(trials)} trials is a {missing} trial; both kinds are needed")


def check_labels(trials: Trials, utt2spk: Mapping[str, str]) -> None:
    """Check that the trials' labels are what `utt2spk` says.

    Raises:
        InputError: naming the first trial that it contradicts, or an utterance that it does not know.
    """
    for enroll, test, label in zip(trials.enroll, trials.test, trials.labels.tolist(), strict=True):
        if unknown := next((name for name in (enroll, test) if name not in utt2spk), None):
            raise InputError(f"utterance {unknown!r} of the trials has no speaker in utt2spk")
        if (utt2spk[enroll] == utt2spk[test]) != label:
            kind = "target" if label else "nontarget"
            where = f"{trials.path}: " if trials.path else ""
            raise InputError(f"{where}trial {enroll} {test}: it is labelled {kind}, which utt2spk contradicts")


def make_trials(
    utt2spk: Mapping[str, str],
    seed: int,
    *,
    spk2gender: Mapping[str, str] | None = None,
    spk2age: Mapping[str, str] | None = None,
    session_of: Mapping[str, str] | None = None,
    max_targets: int | None = None,
) -> dict[str, Trials]:
    """Make lists from a seed: `trials_O` with random nontargets, `trials_H` with nontargets of the same sex and age.

    Both have the same targets: all pairs of a speaker's utterances, or `max_targets` random ones. With `session_of`,
    the two utterances of a target are of different sessions. There are as many nontargets as targets, or all that
    exist. Without `spk2gender` there is no H. Without `spk2age` (in years), H uses sex only. H is also omitted, with a
    warning, if no two speakers are alike. The age groups are below 13, 13 to 17, and 18 or more.

    Raises:
        InputError: if there is no target or no nontarget pair, or a speaker's sex or age is not given.
    """
    utterances = sorted_keys(utt2spk)
    speakers = [utt2spk[utterance] for utterance in utterances]
    sessions = [session_of[utterance] for utterance in utterances] if session_of else utterances
    rng = np.random.default_rng(seed)
    targets = _draw_pairs(speakers, sessions, max_targets, rng)
    if not len(targets):
        needed = "utterances of two sessions" if session_of else "two utterances"
        raise InputError(f"no target trial can be made: no speaker has {needed}")
    if len(targets) == max_targets:
        log.info("targets are limited to %d", max_targets)
    pools = {"trials_O": [""] * len(speakers)}
    if spk2gender is not None:
        groups = {speaker: _group(speaker, spk2gender, spk2age) for speaker in set(speakers)}
        pools["trials_H"] = [groups[speaker] for speaker in speakers]
    nontargets = {name: _draw_pairs(pool, speakers, len(targets), rng) for name, pool in pools.items()}
    if not len(nontargets["trials_O"]):
        raise InputError("no nontarget trial can be made: there is one speaker only")
    for name, pairs in nontargets.items():
        if len(pairs) < len(targets):
            log.warning("%s: only %d nontargets for %d targets", name, len(pairs), len(targets))
    return {name: _as_trials(utterances, targets, pairs) for name, pairs in nontargets.items() if len(pairs)}


def _group(speaker: str, spk2gender: Mapping[str, str], spk2age: Mapping[str, str] | None) -> str:
    if speaker not in spk2gender:
        raise InputError(f"spk2gender has no speaker {speaker!r}")
    if spk2age is None:
        return spk2gender[speaker]
    if speaker not in spk2age:
        raise InputError(f"spk2age has no speaker {speaker!r}")
    try:
        age = float(spk2age[speaker])
    except ValueError as error:
        raise InputError(f"spk2age: {spk2age[speaker]!r} of speaker {speaker!r} is not a number of years") from error
    return f"{spk2gender[speaker]} {np.searchsorted([CHILD_BELOW, ADULT_FROM], age, side='right')}"


def _draw_pairs(
    same: Sequence[str], differing: Sequence[str], count: int | None, rng: np.random.Generator
) -> np.ndarray:
    """Draw `count` unique pairs of positions, (n, 2), with equal `same` and unequal `differing`; or all pairs.

    After sorting by (same, differing), the later partners of a position are one range: from the end of its inner group
    to the end of its outer group. So pairs can be numbered without a list of them, which saves memory.
    """
    outer, inner = (np.unique(np.array(values), return_inverse=True)[1] for values in (same, differing))
    order = np.lexsort((inner, outer))
    outer, inner = outer[order], inner[order]
    block = outer * (inner.max() + 1) + inner
    first = np.searchsorted(block, block, side="right")
    ends = np.cumsum(np.searchsorted(outer, outer, side="right") - first)
    total = int(ends[-1])
    take_all = count is None or count >= total
    numbers = np.arange(total) if take_all else rng.choice(total, size=count, replace=False)
    one = np.searchsorted(ends, numbers, side="right")
    other = first[one] + numbers - np.concatenate([[0], ends[:-1]])[one]
    return np.sort(order[np.column_stack([one, other])], axis=1)


def _as_trials(utterances: Sequence[str], targets: np.ndarray, nontargets: np.ndarray) -> Trials:
    pairs = np.concatenate([targets, nontargets])
    labels = np.arange(len(pairs)) < len(targets)
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    enroll, test = ([utterances[position] for position in column] for column in pairs[order].T.tolist())
    return Trials(enroll, test, labels[order])
