"""Kaldi data directories: validate, fix, split, combine, subset.

Tables are held as blocks of bytes (`data.lines`), which does for VoxCeleb2 and two speed-perturbed copies of it (3.3
million utterances).
"""

import filecmp
import logging
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.kaldi.block_table import (
    Lines,
    decimals,
    groups,
    merged,
    numbered,
    pieces,
    read_lines,
)
from wespeaker_lite.kaldi.tables import (
    fix_command,
    iter_table,
    key_and_value,
    read_table,
    sorted_keys,
    spk2utt_of,
    write_lines,
)

log = logging.getLogger(__name__)

JOINTS = ("-", "/", "")  # after the speaker in an utterance id: sort before letters and digits; or nothing follows
MADE_FROM_AUDIO = ("feats.scp", "utt2dur", "utt2num_frames", "vad.scp")
AUDIO = ("reco2dur", "segments", "wav.scp")
_BY_UTTERANCE = re.compile(r"utt2\w+|feats\.scp|vad\.scp|segments|text")
_BY_SPEAKER = re.compile(r"spk2(?!utt$)\w+")
_SECONDS = r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"  # float() would also take 1_0, nan, and digits of other scripts
SEGMENT = re.compile(rf"(\S+)\s+({_SECONDS})\s+({_SECONDS})", re.ASCII)


def tables_of(directory: str | Path) -> dict[str, str]:
    """Find the tables of a data directory: name -> what it is keyed by: utterance, speaker or recording.

    spk2utt, which is derived, is not among them.

    Raises:
        InputError: where there is no utt2spk.
    """
    directory = Path(directory)
    if not (directory / "utt2spk").exists():
        raise InputError(f"{directory}: no data directory: there is no utt2spk in it")
    recording = "recording" if (directory / "segments").exists() else "utterance"
    kinds = {}
    for name in sorted(path.name for path in directory.iterdir() if path.is_file()):
        if _BY_UTTERANCE.fullmatch(name):
            kinds[name] = "utterance"
        elif _BY_SPEAKER.fullmatch(name):
            kinds[name] = "speaker"
        elif name in ("wav.scp", "reco2dur"):
            kinds[name] = recording
    return kinds


def read_utt2spk(directory: str | Path) -> dict[str, str]:
    """Read utterance -> speaker.

    Raises:
        InputError: as `iter_table`, and naming the line of a speaker of more than one word.
    """
    return _speaker_by_utterance(read_speakers(directory))


def _speaker_by_utterance(lines: Lines) -> dict[str, str]:
    pairs = zip(lines.keys.tolist(), lines.column().tolist(), strict=True)
    return {utterance.decode(): sys.intern(speaker.decode()) for utterance, speaker in pairs}


def read_speakers(directory: str | Path) -> Lines:
    """Read utt2spk as a block.

    Raises:
        InputError: as `read_lines`, and naming the line of a speaker of more than one word.
    """
    path = Path(directory) / "utt2spk"
    lines = read_lines(path)
    spaces = np.flatnonzero(lines.data == ord(" "))
    if len(spaces) > len(lines):
        number = int(np.searchsorted(lines.starts, np.setdiff1d(spaces, lines.values - 1)[0])) - 1
        utterance, speaker = lines.keys[number].decode(), lines.value(number)
        raise InputError(f"{path}:{number + 1}: expected utterance and speaker, found {utterance!r} {speaker!r}")
    return lines


class Segment(NamedTuple):
    """A line of a segments file; times in seconds."""

    line: int
    utterance: str
    recording: str
    start: float
    end: float


def iter_segments(path: str | Path) -> Iterator[Segment]:
    """Yield the segments of a segments file.

    Raises:
        InputError: as `iter_table`, and naming the line where a time is no number, or the end is not after the start.
    """
    for number, utterance, value in iter_table(path):
        segment = _segment(number, utterance, value)
        if segment is None:
            raise InputError(
                f"{path}:{number}: expected utterance, recording, and a start and a later end in seconds, "
                f"found {utterance!r} {value!r}; run: {fix_command(Path(path).parent)}"
            )
        yield segment


def _segment(number: int, utterance: str, value: str) -> Segment | None:
    fields = SEGMENT.fullmatch(value)
    if not fields:
        return None
    segment = Segment(number, utterance, fields[1], float(fields[2]), float(fields[3]))
    return segment if segment.start < segment.end < float("inf") else None


# validate


def validate(directory: str | Path, feats: bool = True, wav: bool = True) -> tuple[int, int]:
    """Check a data directory and count its utterances and speakers.

    Without `feats`, what is made from audio is neither asked for nor looked at; without `wav`, the audio is not.

    Raises:
        InputError: for the first fault: file and line, or the keys that are missing, and the command that mends it.
    """
    directory = Path(directory)
    tables = tables_of(directory)
    utt2spk = read_speakers(directory)
    speakers, bounds = _speakers_of(directory, utt2spk)
    _check_spk2utt(directory, utt2spk, speakers, bounds)
    ignored = (() if feats else MADE_FROM_AUDIO) + (() if wav else AUDIO)
    for name in ("wav.scp", "feats.scp", "utt2num_frames"):
        if name not in tables and name not in ignored:
            stage = "the list stage" if name == "wav.scp" else "the feature stage"
            raise InputError(f"{directory / name}: no such file; it is made by {stage}: run that first")
    for name, kind in tables.items():
        if name not in ignored and kind != "recording":
            _check_table(directory / name, utt2spk.keys if kind == "utterance" else np.sort(speakers), kind)
    if wav and "segments" in tables:
        _check_recordings(directory)
    return len(utt2spk), len(speakers)


def _speakers_of(directory: Path, utt2spk: Lines) -> tuple[np.ndarray, np.ndarray]:
    """The speakers as they come, (s,) S, and where their utterances begin and end, (s + 1,).

    They must be prefixes, and keep together: sorting and splitting rely on it.
    """
    column = utt2spk.column()
    sizes = np.char.str_len(column)
    letters = utt2spk.data[utt2spk.starts[:-1] + sizes]  # behind the speaker; the space, where nothing is
    is_prefix = np.char.startswith(utt2spk.keys, column) & np.isin(letters, [ord(joint or " ") for joint in JOINTS])
    if not is_prefix.all():
        number = int(np.flatnonzero(~is_prefix)[0])
        raise InputError(
            f"{directory}/utt2spk:{number + 1}: utterance {utt2spk.keys[number].decode()!r} does not start with its "
            f"speaker {utt2spk.value(number)!r} and one of {' '.join(JOINTS).strip()}: "
            "rename the utterance, in all tables"
        )
    bounds = groups(column)
    speakers = column[bounds[:-1]]
    if len(set(speakers.tolist())) < len(speakers):
        first = next(n for n in range(len(speakers)) if speakers[n] in speakers[:n])
        raise InputError(
            f"{directory}/utt2spk:{bounds[first] + 1}: the utterances of {speakers[first].decode()!r} are parted by "
            f"those of {speakers[first - 1].decode()!r}, one id being the beginning of the other: "
            "rename one of the speakers"
        )
    return speakers, bounds


def _check_spk2utt(directory: Path, utt2spk: Lines, speakers: np.ndarray, bounds: np.ndarray) -> None:
    path = directory / "spk2utt"
    mend = f"run: {fix_command(directory)}"
    if not path.exists():
        raise InputError(f"{path}: no such file; {mend}")
    expected = ((speakers[n], utt2spk.keys[bounds[n] : bounds[n + 1]]) for n in np.argsort(speakers))
    for found, right in zip_longest(iter_table(path), expected):
        if found is None:
            raise InputError(f"{path}: speaker {right[0].decode()!r} of utt2spk is missing; {mend}")
        if right is None or (found[1].encode(), found[2].encode().split()) != (right[0], right[1].tolist()):
            raise InputError(f"{path}:{found[0]}: speaker {found[1]!r} does not match utt2spk; {mend}")


def _check_table(path: Path, known: np.ndarray, kind: str) -> None:
    """Check values, that all keys are known (n,) S, and of a table by utterance that all known ones are there."""
    lines = read_lines(path)
    expected, is_good = _value_check(path.name)
    bad = ~is_good(lines)
    if bad.any():
        number = int(np.flatnonzero(bad)[0])
        key, value = lines.keys[number].decode(), lines.value(number)
        raise InputError(f"{path}:{number + 1}: {key!r} has {value!r}, expected {expected}")
    if np.array_equal(lines.keys, known):
        return
    mend = f"run: {fix_command(path.parent)}"
    unknown = np.flatnonzero(~np.isin(lines.keys, known))
    if len(unknown):
        fault = "has no speaker in utt2spk" if kind == "utterance" else "has no utterance in utt2spk"
        names = _some(key.decode() for key in lines.keys[unknown].tolist())
        raise InputError(
            f"{path}:{unknown[0] + 1}: {kind} {lines.keys[unknown[0]].decode()!r} {fault} "
            f"({len(unknown)} such: {names}); {mend}"
        )
    if kind == "utterance":
        names = _some(key.decode() for key in known[~np.isin(known, lines.keys)].tolist())
        raise InputError(
            f"{path}: {len(known) - len(lines)} of the {len(known)} utterances of utt2spk are missing: {names}; "
            f"make them, or drop them everywhere: {mend}"
        )


def _value_check(name: str) -> tuple[str, Callable[[Lines], np.ndarray]]:
    """What a value of a table should be, and the test of all of them, (n,) bool."""
    match name:
        case "utt2num_frames":
            return "a positive number of frames", lambda lines: decimals(lines.column()) > 0
        case "utt2dur":
            return "positive seconds", _are_seconds
        case "feats.scp":
            return "an offset in an ark that exists", _are_in_arks
    return "", lambda lines: np.ones(len(lines), dtype=bool)


def _are_seconds(lines: Lines) -> np.ndarray:
    values, numbers = np.unique(lines.column(), return_inverse=True)
    seconds = re.compile(_SECONDS.encode())
    good = [bool(seconds.fullmatch(value)) and 0 < float(value) < float("inf") for value in values.tolist()]
    return np.array(good)[numbers]


def _are_in_arks(lines: Lines) -> np.ndarray:
    """Whether the ark of `ark:offset` exists; every ark is looked for once."""
    column, offsets = lines.located()
    arks, numbers = numbered(column)
    return np.array([os.path.exists(ark) for ark in arks])[numbers] & (offsets >= 0)


def _some(keys: Iterable[str]) -> str:
    """The first three keys, as words."""
    words = [key for key, _ in zip(keys, range(4), strict=False)]
    return ", ".join(words[:3]) + (", ..." if len(words) > 3 else "")


def _check_recordings(directory: Path) -> None:
    recordings = {key for _, key, _ in iter_table(directory / "wav.scp")}
    for segment in iter_segments(directory / "segments"):
        if segment.recording not in recordings:
            raise InputError(
                f"{directory}/segments:{segment.line}: recording {segment.recording!r} is not in wav.scp; "
                f"add it, or run: {fix_command(directory)}"
            )


# fix


def fix(directory: str | Path) -> dict[str, int]:
    """Sort the tables, drop what lacks an entry in one of them, make spk2utt anew; old files are kept in `.backup/`.

    Returns:
        For each table that was changed, how many lines were dropped.

    Raises:
        InputError: where a key has two values, or nothing would be left; nothing is changed then.
    """
    directory = Path(directory)
    tables = tables_of(directory)
    keep, sound = _keys_to_keep(directory, tables)
    changed = {}
    for name, kind in tables.items():
        if sound.get(name) == len(keep[kind]):
            continue
        table = _read_loosely(directory / name)
        lines = (f"{key} {table[key]}\n" for key in sorted_keys(keep[kind] & table.keys()))
        if _replace(directory / name, lines):
            changed[name] = len(table.keys() - keep[kind])
    if _replace(directory / "spk2utt", _spk2utt_lines(read_speakers(directory))):
        changed["spk2utt"] = 0
    return changed


def _keys_to_keep(directory: Path, tables: Mapping[str, str]) -> tuple[dict[str, set[str]], dict[str, int]]:
    """The utterances that every table has, their speakers and recordings; and the sizes of tables that are in order."""
    sound: dict[str, int] = {}
    utt2spk = _read_either_way(directory / "utt2spk", sound)
    for utterance, speaker in utt2spk.items():
        if len(speaker.split()) != 1:
            raise InputError(f"{directory}/utt2spk: {utterance!r} is of the speaker {speaker!r}: that is not one word")
    utterances = set(utt2spk)
    for name, kind in tables.items():
        if kind == "utterance" and name != "utt2spk":
            utterances &= _read_either_way(directory / name, sound).keys()
    recordings: set[str] = set()
    if "segments" in tables:
        good = _good_segments(directory, utterances)
        utterances, recordings = set(good), set(good.values())
    if not utterances:
        raise InputError(f"{directory}: no utterance has an entry in all of {', '.join(tables)}: nothing was changed")
    return {"utterance": utterances, "speaker": {utt2spk[key] for key in utterances}, "recording": recordings}, sound


def _good_segments(directory: Path, utterances: Collection[str]) -> dict[str, str]:
    """Utterance -> recording of segments that have one and lie in it."""
    known = _read_loosely(directory / "wav.scp") if (directory / "wav.scp").exists() else {}
    rows = _read_loosely(directory / "segments").items()
    segments = (_segment(0, *row) for row in rows if row[0] in utterances)
    return {segment.utterance: segment.recording for segment in segments if segment and segment.recording in known}


def _read_either_way(path: Path, sound: dict[str, int]) -> dict[str, str]:
    """Read a table, and note its size in `sound` if it needs no mending; strict reading is the faster one."""
    try:
        table = read_table(path)
    except InputError:
        return _read_loosely(path)
    sound[path.name] = len(table)
    return table


def _read_loosely(path: Path) -> dict[str, str]:
    """Read a table in any order; blank lines, keys without value and repeated lines are dropped, the last two said."""
    table: dict[str, str] = {}
    dropped = []
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            key, value = key_and_value(path, number, line)
            if key and (not value or key in table):
                dropped.append(key)
            if value and table.setdefault(key, value) != value:
                raise InputError(
                    f"{path}:{number}: {key!r} stands twice, with different values: remove one of the lines"
                )
    if dropped:
        log.warning("%s: %d lines repeated or without a value are dropped: %s", path, len(dropped), _some(dropped))
    return table


def _replace(path: Path, lines: Iterable[str]) -> bool:
    """Write the file anew if that changes it, and keep the old one in `.backup/`; say whether it did."""
    fixed = path.with_name(f".{path.name}.fixed")
    write_lines(fixed, lines)
    if path.exists() and filecmp.cmp(path, fixed, shallow=False):
        fixed.unlink()
        return False
    if path.exists():
        backup = path.parent / ".backup"
        backup.mkdir(exist_ok=True)
        write_lines(backup / path.name, [path.read_bytes()])
    os.replace(fixed, path)
    return True


def _spk2utt_lines(utt2spk: Lines) -> Iterator[bytes]:
    speakers, speaker_of = numbered(utt2spk.column())
    keys = utt2spk.keys[np.argsort(speaker_of, kind="stable")]
    ends = np.cumsum(np.bincount(speaker_of)).tolist()
    for speaker, first, end in zip(speakers, [0, *ends], ends, strict=False):
        yield b"%s %s\n" % (speaker.encode(), b" ".join(keys[first:end].tolist()))


# split, subset, combine


def split(directory: str | Path, parts: int, out: str | Path, per_utt: bool = False, at_most: bool = False) -> int:
    """Split into `out`/1 to `out`/N, in order, of about as many utterances each; `per_utt` may break speakers.

    Returns:
        The number of parts, which is smaller than `parts` where `at_most` allows it and there is less to share.

    Raises:
        InputError: where there are fewer speakers (utterances) than parts.
    """
    utt2spk = read_speakers(directory)
    speaker_of = numbered(utt2spk.column())[1]
    sizes = [1] * len(utt2spk) if per_utt else np.bincount(speaker_of).tolist()
    if at_most:
        parts = min(parts, len(sizes))
    if not 1 <= parts <= len(sizes):
        what, hint = ("utterances", "") if per_utt else ("speakers", ", or split with --per-utt")
        raise InputError(f"{directory}: {len(sizes)} {what} cannot be split into {parts}: take 1 to {len(sizes)}{hint}")
    shares = np.array(shares_of(sizes, parts))
    part_of = shares if per_utt else shares[speaker_of]
    _distribute(Path(directory), utt2spk, part_of, [Path(out) / str(part + 1) for part in range(parts)])
    return parts


def shares_of(sizes: Sequence[int], parts: int) -> list[int]:
    """Part (0 to parts - 1) of each of a row of groups: in order, no part empty, of about the same total each."""
    total, before, part, shares = sum(sizes), 0, -1, []
    for place, size in enumerate(sizes):
        middle = int((before + size / 2) * parts / total)
        part = max(min(middle, part + 1), parts - (len(sizes) - place), part)
        shares.append(part)
        before += size
    return shares


def _distribute(directory: Path, utt2spk: Lines, part_of: np.ndarray, outs: Sequence[Path]) -> None:
    """Write to each of `outs` the lines of the utterances whose part (n,) is its number; -1 is none."""
    _check_elsewhere(outs, [directory])
    tables = tables_of(directory)
    owners = {"speaker": utt2spk.column()}
    if "segments" in tables:
        recording_of = {segment.utterance: segment.recording for segment in iter_segments(directory / "segments")}
        owners["recording"] = np.array([recording_of.get(key.decode(), "").encode() for key in utt2spk.keys.tolist()])
    for name, kind in tables.items():
        lines = read_lines(directory / name)
        parts = _part_of_lines(lines, utt2spk, part_of) if kind == "utterance" else None
        for part, out in enumerate(outs):
            chosen = np.isin(lines.keys, owners[kind][part_of == part]) if parts is None else parts == part
            if chosen.any():
                write_lines(out / name, lines.runs(np.flatnonzero(chosen)))
    for out in outs:
        _finish(out, tables)


def _part_of_lines(lines: Lines, utt2spk: Lines, part_of: np.ndarray) -> np.ndarray:
    """The part of each line of a table by utterance, -1 where its utterance has none."""
    if np.array_equal(lines.keys, utt2spk.keys):
        return part_of
    places = np.minimum(np.searchsorted(utt2spk.keys, lines.keys), len(utt2spk) - 1)
    return np.where(utt2spk.keys[places] == lines.keys, part_of[places], -1)


def _check_elsewhere(outs: Iterable[Path], sources: Iterable[Path]) -> None:
    for out in {out.resolve() for out in outs} & {source.resolve() for source in sources}:
        raise InputError(f"{out}: a data directory cannot be written over itself: name another one")


def _finish(directory: Path, tables: Collection[str]) -> None:
    """Make spk2utt, and take away tables that an earlier run left and this one did not write."""
    for name in tables_of(directory).keys() - set(tables):
        (directory / name).unlink()
    write_lines(directory / "spk2utt", _spk2utt_lines(read_speakers(directory)))


@dataclass(frozen=True)
class Selection:
    """What a subset holds: utterances of these lists (files), so many of each speaker, so many in all, by seed."""

    utts: str = ""
    speakers: str = ""
    per_spk: int = 0
    num_utts: int = 0
    seed: int = 0


def subset(directory: str | Path, out: str | Path, selection: Selection) -> int:
    """Write the utterances that a selection leaves to the data directory `out`, and return their number.

    Raises:
        InputError: where a list names something unknown, or there are fewer utterances than asked for.
    """
    lines = read_speakers(directory)
    utt2spk = _speaker_by_utterance(lines)
    chosen = list(utt2spk)
    if selection.utts:
        wanted = _read_list(selection.utts, utt2spk, directory)
        chosen = [utterance for utterance in chosen if utterance in wanted]
    if selection.speakers:
        wanted = _read_list(selection.speakers, set(utt2spk.values()), directory)
        chosen = [utterance for utterance in chosen if utt2spk[utterance] in wanted]
    rng = np.random.default_rng(selection.seed)
    if selection.per_spk:
        by_speaker = spk2utt_of({utterance: utt2spk[utterance] for utterance in chosen}).values()
        chosen = [utts[place] for utts in by_speaker for place in rng.permutation(len(utts))[: selection.per_spk]]
    if selection.num_utts > len(chosen):
        raise InputError(f"{directory}: {selection.num_utts} utterances were asked for, there are {len(chosen)}")
    if selection.num_utts:
        chosen = [chosen[place] for place in rng.permutation(len(chosen))[: selection.num_utts]]
    if not chosen:
        raise InputError(f"{directory}: the selection leaves no utterance")
    wanted = set(chosen)
    part_of = np.array([0 if utterance in wanted else -1 for utterance in utt2spk])
    _distribute(Path(directory), lines, part_of, [Path(out)])
    return len(chosen)


def _read_list(path: str, known: Collection[str], directory: str | Path) -> set[str]:
    """Read the first words of the lines of a file."""
    if not Path(path).exists():
        raise InputError(f"{path}: no such file")
    lines = Path(path).read_text(encoding="utf-8").split("\n")
    wanted = {line.split()[0]: number for number, line in enumerate(lines, start=1) if line.strip()}
    unknown = [key for key in wanted if key not in known]
    if unknown:
        raise InputError(
            f"{path}:{wanted[unknown[0]]}: {unknown[0]!r} is not in {directory} ({len(unknown)} such: {_some(unknown)})"
        )
    return set(wanted)


def combine(out: str | Path, directories: Sequence[str | Path]) -> int:
    """Join data directories into `out`, and return the number of utterances; tables that one lacks are left out.

    Raises:
        InputError: where an utterance is in two of them, a speaker or a recording has different values, or only some
            have segments.
    """
    sources = [Path(directory) for directory in directories]
    tables = [tables_of(source) for source in sources]
    common = {name: kind for name, kind in tables[0].items() if all(name in other for other in tables)}
    left_out = set().union(*tables) - common.keys()
    if "segments" in left_out:
        raise InputError(f"{_some(map(str, sources))}: some have segments and some have not: these cannot be combined")
    _check_elsewhere([Path(out)], sources)
    for name in sorted(left_out):
        log.warning("%s: left out of %s, since not all have it", name, out)
    for name, kind in common.items():
        write_lines(Path(out) / name, _joined([source / name for source in sources], kind))
    _finish(Path(out), common)
    return len(read_lines(Path(out) / "utt2spk"))


def _joined(paths: Sequence[Path], kind: str) -> Iterator[memoryview]:
    """Merge sorted tables."""
    sources = [read_lines(path) for path in paths]
    keys, source, number = merged(sources)
    again = np.flatnonzero(keys[1:] == keys[:-1]) + 1
    for place in again.tolist():
        one, other = (sources[source[at]].value(number[at]) for at in (place - 1, place))
        if kind == "utterance" or one != other:
            fault = "is in both" if kind == "utterance" else "has different values in"
            raise InputError(
                f"{kind} {keys[place].decode()!r} {fault} {paths[source[place - 1]]} and {paths[source[place]]}"
            )
    yield from pieces(sources, np.delete(source, again), np.delete(number, again))
