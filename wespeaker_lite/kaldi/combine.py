"""Combine data directories."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.files import write_lines
from wespeaker_lite.kaldi.block_table import (
    merged,
    pieces,
    read_block_table,
)
from wespeaker_lite.kaldi.data_dir import SPK2UNLABELLED, check_elsewhere, finish, first_few, tables_of

log = logging.getLogger(__name__)


def combine(out: str | Path, directories: Sequence[str | Path]) -> int:
    """Join data directories into `out` and return the number of utterances. Tables that one of them lacks are omitted,
    except for the list of unlabelled utterances.

    Raises:
        InputError: if two of them have the same utterance, or different values for a speaker or a recording, or only
            some have segments.
    """
    sources = [Path(directory) for directory in directories]
    tables = [tables_of(source) for source in sources]
    kept = set(tables[0]).intersection(*tables[1:]) | {SPK2UNLABELLED}
    common = {name: kind for of_one in tables for name, kind in of_one.items() if name in kept}
    left_out = set().union(*tables) - common.keys()
    if "segments" in left_out:
        raise InputError(
            f"{first_few(map(str, sources))}: some have segments and others do not: they cannot be combined"
        )
    check_elsewhere([Path(out)], sources)
    for name in sorted(left_out):
        log.warning("%s: left out of %s, since not all have it", name, out)
    for name, kind in common.items():
        write_lines(Path(out) / name, _joined([source / name for source in sources if (source / name).exists()], kind))
    finish(Path(out), common)
    return len(read_block_table(Path(out) / "utt2spk"))


def _joined(paths: Sequence[Path], kind: str) -> Iterator[memoryview]:
    """Merge sorted tables."""
    sources = [read_block_table(path) for path in paths]
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
