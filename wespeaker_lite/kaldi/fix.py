"""Fix a data directory."""

import filecmp
import logging
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.files import write_lines
from wespeaker_lite.kaldi.data_dir import first_few, read_speakers, spk2utt_lines, tables_of
from wespeaker_lite.kaldi.segments import parse_segment
from wespeaker_lite.kaldi.tables import key_and_value, read_table, sorted_keys

log = logging.getLogger(__name__)


def fix(directory: str | Path) -> dict[str, int]:
    """Sort the tables, drop utterances that one of them lacks, and remake spk2utt. Old files go to `.backup/`.

    Returns:
        For each changed table, the number of dropped lines.

    Raises:
        InputError: if a key has two values, or nothing would be left. Nothing is changed then.
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
    if _replace(directory / "spk2utt", spk2utt_lines(read_speakers(directory))):
        changed["spk2utt"] = 0
    return changed


def _keys_to_keep(directory: Path, tables: Mapping[str, str]) -> tuple[dict[str, set[str]], dict[str, int]]:
    """The utterances that every table has, their speakers and recordings; and the sizes of the sound tables."""
    sound: dict[str, int] = {}
    utt2spk = _read_either_way(directory / "utt2spk", sound)
    for utterance, speaker in utt2spk.items():
        if len(speaker.split()) != 1:
            raise InputError(f"{directory}/utt2spk: {utterance!r} has speaker {speaker!r}: expected one word")
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
    """Utterance -> recording, for well-formed segments of known recordings."""
    known = _read_loosely(directory / "wav.scp") if (directory / "wav.scp").exists() else {}
    rows = _read_loosely(directory / "segments").items()
    segments = (parse_segment(0, *row) for row in rows if row[0] in utterances)
    return {segment.utterance: segment.recording for segment in segments if segment and segment.recording in known}


def _read_either_way(path: Path, sound: dict[str, int]) -> dict[str, str]:
    """Read a table. If it needs no fixing, note its size in `sound`. Strict reading is tried first: it is faster."""
    try:
        table = read_table(path)
    except InputError:
        return _read_loosely(path)
    sound[path.name] = len(table)
    return table


def _read_loosely(path: Path) -> dict[str, str]:
    """Read an unsorted table. Blank lines, keys without value (with a warning) and repeated lines (too) are dropped."""
    table: dict[str, str] = {}
    dropped = []
    with open(path, "rb") as file:
        for number, line in enumerate(file, start=1):
            key, value = key_and_value(path, number, line)
            if key and (not value or key in table):
                dropped.append(key)
            if value and table.setdefault(key, value) != value:
                raise InputError(
                    f"{path}:{number}: {key!r} appears twice, with different values: remove one of the lines"
                )
    if dropped:
        log.warning("%s: %d lines repeated or without a value are dropped: %s", path, len(dropped), first_few(dropped))
    return table


def _replace(path: Path, lines: Iterable[str]) -> bool:
    """Replace a file if its content changes, and keep the old one in `.backup/`. Return whether it changed."""
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
