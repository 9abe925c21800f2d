"""Check a data directory."""

import os
import re
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path

import numpy as np

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.kaldi.block_table import (
    BlockTable,
    decimals,
    groups,
    numbered,
    read_block_table,
)
from wespeaker_lite.kaldi.data_dir import first_few, read_speakers, tables_of
from wespeaker_lite.kaldi.segments import SECONDS, iter_segments
from wespeaker_lite.kaldi.tables import (
    fix_command,
    iter_table,
)

JOINTS = ("-", "/", "")  # after the speaker in an id: they sort before letters and digits; "" if the id ends there
MADE_FROM_AUDIO = ("feats.scp", "utt2dur", "utt2num_frames", "vad.scp")
AUDIO = ("reco2dur", "segments", "wav.scp")


def validate(directory: str | Path, feats: bool = True, wav: bool = True) -> tuple[int, int]:
    """Check a data directory, and return its numbers of utterances and speakers.

    Without `feats`, tables made from audio are not checked. Without `wav`, tables of audio are not checked.

    Raises:
        InputError: for the first fault: file and line, or the missing keys, and the command that fixes it.
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


def _speakers_of(directory: Path, utt2spk: BlockTable) -> tuple[np.ndarray, np.ndarray]:
    """The speakers in order of appearance, (s,) S, and the bounds of their utterances, (s + 1,).

    Speakers must be prefixes of their utterances, and their utterances consecutive: sorting and splitting rely on it.
    """
    column = utt2spk.column()
    sizes = np.char.str_len(column)
    letters = utt2spk.data[utt2spk.starts[:-1] + sizes]  # after the speaker; a space if the id ends there
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
            f"{directory}/utt2spk:{bounds[first] + 1}: the utterances of {speakers[first].decode()!r} are separated by "
            f"those of {speakers[first - 1].decode()!r}, because one id is a prefix of the other: "
            "rename one of the speakers"
        )
    return speakers, bounds


def _check_spk2utt(directory: Path, utt2spk: BlockTable, speakers: np.ndarray, bounds: np.ndarray) -> None:
    path = directory / "spk2utt"
    hint = f"run: {fix_command(directory)}"
    if not path.exists():
        raise InputError(f"{path}: no such file; {hint}")
    expected = ((speakers[n], utt2spk.keys[bounds[n] : bounds[n + 1]]) for n in np.argsort(speakers))
    for found, right in zip_longest(iter_table(path), expected):
        if found is None:
            raise InputError(f"{path}: speaker {right[0].decode()!r} of utt2spk is missing; {hint}")
        if right is None or (found[1].encode(), found[2].encode().split()) != (right[0], right[1].tolist()):
            raise InputError(f"{path}:{found[0]}: speaker {found[1]!r} does not match utt2spk; {hint}")


def _check_table(path: Path, known: np.ndarray, kind: str) -> None:
    """Check the values, and that all keys are `known` (n,) S. A table of utterances must have all known keys."""
    lines = read_block_table(path)
    expected, is_good = _value_check(path.name)
    bad = ~is_good(lines)
    if bad.any():
        number = int(np.flatnonzero(bad)[0])
        key, value = lines.keys[number].decode(), lines.value(number)
        raise InputError(f"{path}:{number + 1}: {key!r} has {value!r}, expected {expected}")
    if np.array_equal(lines.keys, known):
        return
    hint = f"run: {fix_command(path.parent)}"
    unknown = np.flatnonzero(~np.isin(lines.keys, known))
    if len(unknown):
        fault = "has no speaker in utt2spk" if kind == "utterance" else "has no utterance in utt2spk"
        names = first_few(key.decode() for key in lines.keys[unknown].tolist())
        raise InputError(
            f"{path}:{unknown[0] + 1}: {kind} {lines.keys[unknown[0]].decode()!r} {fault} "
            f"({len(unknown)} such: {names}); {hint}"
        )
    if kind == "utterance":
        names = first_few(key.decode() for key in known[~np.isin(known, lines.keys)].tolist())
        raise InputError(
            f"{path}: {len(known) - len(lines)} of the {len(known)} utterances of utt2spk are missing: {names}; "
            f"make them, or drop them everywhere: {hint}"
        )


def _value_check(name: str) -> tuple[str, Callable[[BlockTable], np.ndarray]]:
    """What a value of this table should be, in words, and a function that checks all of them, (n,) bool."""
    match name:
        case "utt2num_frames":
            return "a positive number of frames", lambda lines: decimals(lines.column()) > 0
        case "utt2dur":
            return "positive seconds", _are_seconds
        case "feats.scp":
            return "an offset in an ark that exists", _are_in_arks
    return "", lambda lines: np.ones(len(lines), dtype=bool)


def _are_seconds(lines: BlockTable) -> np.ndarray:
    values, numbers = np.unique(lines.column(), return_inverse=True)
    seconds = re.compile(SECONDS.encode())
    good = [bool(seconds.fullmatch(value)) and 0 < float(value) < float("inf") for value in values.tolist()]
    return np.array(good)[numbers]


def _are_in_arks(lines: BlockTable) -> np.ndarray:
    """Whether the ark of `ark:offset` exists. Each ark is looked up once."""
    column, offsets = lines.located()
    arks, numbers = numbered(column)
    return np.array([os.path.exists(ark) for ark in arks])[numbers] & (offsets >= 0)


def _check_recordings(directory: Path) -> None:
    recordings = {key for _, key, _ in iter_table(directory / "wav.scp")}
    for segment in iter_segments(directory / "segments"):
        if segment.recording not in recordings:
            raise InputError(
                f"{directory}/segments:{segment.line}: recording {segment.recording!r} is not in wav.scp; "
                f"add it, or run: {fix_command(directory)}"
            )
