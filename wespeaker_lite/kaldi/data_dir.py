"""Kaldi data directories: reading their tables and writing parts of them.

Tables are held as blocks of bytes (`kaldi.block_table`), which is enough for VoxCeleb2 and two speed-perturbed copies
of it (3.3 million utterances).
"""

import re
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.files import write_lines
from wespeaker_lite.kaldi.block_table import (
    BlockTable,
    numbered,
    read_block_table,
)
from wespeaker_lite.kaldi.segments import iter_segments
from wespeaker_lite.kaldi.tables import read_table

# The table of unlabelled utterances. As usual in Kaldi, an utterance of an unknown speaker is its own speaker in
# utt2spk. This table has these placeholders, each with the value `yes`. A copy with noise has the same placeholder.
SPK2UNLABELLED = "spk2unlabelled"

_BY_UTTERANCE = re.compile(r"utt2\w+|feats\.scp|vad\.scp|segments|text")
_BY_SPEAKER = re.compile(r"spk2(?!utt$)\w+")


def tables_of(directory: str | Path) -> dict[str, str]:
    """Find the tables of a data directory: name -> kind of its keys (utterance, speaker or recording).

    spk2utt is not included, because it is derived from utt2spk.

    Raises:
        InputError: if there is no utt2spk.
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
        InputError: as `iter_table`, and naming the line if a speaker is more than one word.
    """
    return speaker_by_utterance(read_speakers(directory))


def speaker_by_utterance(lines: BlockTable) -> dict[str, str]:
    """Turn the block of utt2spk into a dict."""
    pairs = zip(lines.keys.tolist(), lines.column().tolist(), strict=True)
    return {utterance.decode(): sys.intern(speaker.decode()) for utterance, speaker in pairs}


def unlabelled_speakers(directory: str | Path) -> set[str]:
    """Read the placeholders of unknown speakers. Without a file `spk2unlabelled` there are none.

    Raises:
        InputError: as `read_table`.
    """
    path = Path(directory) / SPK2UNLABELLED
    return set(read_table(path)) if path.exists() else set()


def read_speakers(directory: str | Path) -> BlockTable:
    """Read utt2spk as a block.

    Raises:
        InputError: as `read_block_table`, and naming the line if a speaker is more than one word.
    """
    path = Path(directory) / "utt2spk"
    lines = read_block_table(path)
    spaces = np.flatnonzero(lines.data == ord(" "))
    if len(spaces) > len(lines):
        number = int(np.searchsorted(lines.starts, np.setdiff1d(spaces, lines.values - 1)[0])) - 1
        utterance, speaker = lines.keys[number].decode(), lines.value(number)
        raise InputError(f"{path}:{number + 1}: expected utterance and speaker, found {utterance!r} {speaker!r}")
    return lines


def first_few(keys: Iterable[str]) -> str:
    """The first three keys, for a message."""
    words = [key for key, _ in zip(keys, range(4), strict=False)]
    return ", ".join(words[:3]) + (", ..." if len(words) > 3 else "")


def spk2utt_lines(utt2spk: BlockTable) -> Iterator[bytes]:
    """Yield the lines of spk2utt."""
    speakers, speaker_of = numbered(utt2spk.column())
    keys = utt2spk.keys[np.argsort(speaker_of, kind="stable")]
    ends = np.cumsum(np.bincount(speaker_of)).tolist()
    for speaker, first, end in zip(speakers, [0, *ends], ends, strict=False):
        yield b"%s %s\n" % (speaker.encode(), b" ".join(keys[first:end].tolist()))


def distribute(directory: Path, utt2spk: BlockTable, part_of: np.ndarray, outs: Sequence[Path]) -> None:
    """Write utterances to the directories `outs`: `part_of` (n,) has the index in `outs` for each, or -1 for none."""
    check_elsewhere(outs, [directory])
    tables = tables_of(directory)
    owners = {"speaker": utt2spk.column()}
    if "segments" in tables:
        recording_of = {segment.utterance: segment.recording for segment in iter_segments(directory / "segments")}
        owners["recording"] = np.array([recording_of.get(key.decode(), "").encode() for key in utt2spk.keys.tolist()])
    for name, kind in tables.items():
        lines = read_block_table(directory / name)
        parts = _part_of_lines(lines, utt2spk, part_of) if kind == "utterance" else None
        for part, out in enumerate(outs):
            chosen = np.isin(lines.keys, owners[kind][part_of == part]) if parts is None else parts == part
            if chosen.any():
                write_lines(out / name, lines.runs(np.flatnonzero(chosen)))
    for out in outs:
        finish(out, tables)


def _part_of_lines(lines: BlockTable, utt2spk: BlockTable, part_of: np.ndarray) -> np.ndarray:
    """The part of each line of a table that is keyed by utterance, -1 for none."""
    if np.array_equal(lines.keys, utt2spk.keys):
        return part_of
    places = np.minimum(np.searchsorted(utt2spk.keys, lines.keys), len(utt2spk) - 1)
    return np.where(utt2spk.keys[places] == lines.keys, part_of[places], -1)


def check_elsewhere(outs: Iterable[Path], sources: Iterable[Path]) -> None:
    """Check that no output directory is one of the sources.

    Raises:
        InputError: naming it.
    """
    for out in {out.resolve() for out in outs} & {source.resolve() for source in sources}:
        raise InputError(f"{out}: a data directory cannot be written over itself: name another one")


def finish(directory: Path, tables: Collection[str]) -> None:
    """Write spk2utt, and delete tables that an earlier run wrote and this one did not."""
    for name in tables_of(directory).keys() - set(tables):
        (directory / name).unlink()
    write_lines(directory / "spk2utt", spk2utt_lines(read_speakers(directory)))
