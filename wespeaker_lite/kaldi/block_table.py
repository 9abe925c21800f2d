"""Large tables as one block of bytes, which numpy checks, compares, merges and splits without Python objects."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from wespeaker_lite.kaldi.tables import iter_table

_BLOCK = 1 << 16  # lines per step
_PADDING = 1 << 12  # zeros after the last byte, because a window over a column may go beyond it
_NEWLINE, _SPACE, _COLON, _ZERO = b"\n :0"  # as integers


@dataclass(frozen=True)
class BlockTable:
    """A table. Line n is `data[starts[n] : starts[n + 1]]`, and its value begins at `values[n]`."""

    data: np.ndarray  # uint8, with padding
    starts: np.ndarray  # (n + 1,) int64
    values: np.ndarray  # (n,) int64
    keys: np.ndarray  # (n,) S

    def __len__(self) -> int:
        return len(self.values)

    def column(self) -> np.ndarray:
        """The values, (n,) S."""
        return _column(self.data, self.values, self.starts[1:] - 1)

    def value(self, number: int) -> str:
        """The value of a line, counted from 0."""
        return self.data[self.values[number] : self.starts[number + 1] - 1].tobytes().decode()

    def runs(self, numbers: np.ndarray) -> Iterator[memoryview]:
        """Yield the bytes of some lines (sorted numbers), in one piece for each run of consecutive lines."""
        for first, last in _runs(numbers):
            yield self.data[self.starts[first] : self.starts[last + 1]].data

    def located(self) -> tuple[np.ndarray, np.ndarray]:
        """Split values of the form `ark:offset`: arks (n,) S and offsets (n,) int64, -1 if there is none."""
        colons = np.flatnonzero(self.data == _COLON)
        ends = self.starts[1:] - 1
        places = np.searchsorted(colons, ends) - 1
        cuts = np.where(places >= 0, colons[places] if len(colons) else 0, -1)
        found = cuts > self.values
        cuts = np.where(found, cuts, ends - 1)
        offsets = decimals(_column(self.data, cuts + 1, ends))
        return _column(self.data, self.values, cuts), np.where(found, offsets, -1)


def read_block_table(path: str | Path) -> BlockTable:
    """Read a table. One that is not plain (ASCII, one space between key and value) is converted, which takes longer.

    Raises:
        InputError: as `iter_table`, which reads a table that is not plain.
    """
    path = Path(path)
    if path.exists():
        content = np.fromfile(path, dtype=np.uint8)
        if len(content) and content[-1] == _NEWLINE:
            lines = _split(content)
            if _is_plain(lines, content):
                return lines
    plain = b"".join(f"{key} {value}\n".encode() for _, key, value in iter_table(path))
    return _split(np.frombuffer(plain, dtype=np.uint8))


def _split(content: np.ndarray) -> BlockTable:
    """Split content at newlines, and each line at its first space. `_is_plain` rejects lines without a space."""
    data = np.zeros(len(content) + _PADDING, dtype=np.uint8)
    data[: len(content)] = content
    newlines = np.flatnonzero(content == _NEWLINE)
    starts = np.concatenate([[0], newlines + 1])
    spaces = np.append(np.flatnonzero(content == _SPACE), len(content))
    key_ends = np.minimum(spaces[np.searchsorted(spaces, starts[:-1])], newlines)
    return BlockTable(data, starts, key_ends + 1, _column(data, starts[:-1], key_ends))


def _is_plain(lines: BlockTable, content: np.ndarray) -> bool:
    """Whether each line is a key, a space and a value in printable ASCII, and the keys are sorted and unique."""
    first_and_last = lines.data[[lines.values, lines.starts[1:] - 2]]
    return bool(
        content.max() <= ord("~")
        and np.count_nonzero(content < _SPACE) == len(lines)
        and (lines.data[lines.values - 1] == _SPACE).all()
        and (first_and_last > _SPACE).all()
        and (lines.keys[1:] > lines.keys[:-1]).all()
        and lines.keys[0]
    )


def _column(data: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Copy the pieces data[begins : ends] into an array (n,) S, as wide as the longest piece."""
    sizes = ends - begins
    width = max(1, int(sizes.max()))
    if width > _PADDING:
        data = np.append(data, np.zeros(width, dtype=np.uint8))
    windows = np.lib.stride_tricks.sliding_window_view(data, width)
    column = np.empty((len(begins), width), dtype=np.uint8)
    for first in range(0, len(begins), _BLOCK):
        block = slice(first, first + _BLOCK)
        np.multiply(windows[begins[block]], np.arange(width) < sizes[block, None], out=column[block])
    return column.view(f"S{width}")[:, 0]


def decimals(column: np.ndarray) -> np.ndarray:
    """Parse text (n,) S as int64; -1 for anything but 1 to 18 decimal digits."""
    digits = column.view(np.uint8).reshape(len(column), -1)
    numbers = np.zeros(len(column), dtype=np.int64)
    bad = (digits[:, 0] == 0) | (digits[:, 18:] != 0).any(axis=1)
    for place in digits.T[:18]:
        inside = place != 0
        digit = place - np.uint8(_ZERO)
        bad |= inside & (digit > 9)
        numbers = np.where(inside, 10 * numbers + digit, numbers)
    return np.where(bad, -1, numbers)


def groups(column: np.ndarray) -> np.ndarray:
    """The start of each run of equal values in a column, and finally the length of the column."""
    changes = np.flatnonzero(column[1:] != column[:-1]) + 1
    return np.concatenate([[0], changes, [len(column)]])


def numbered(column: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The unique values of a column in byte order, and for each line the index of its value, (n,) int64."""
    starts = groups(column)
    values, numbers = np.unique(column[starts[:-1]], return_inverse=True)
    return [value.decode() for value in values.tolist()], np.repeat(numbers, np.diff(starts))


def merged(sources: list[BlockTable]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Merge sorted tables. Returns the sorted keys (n,) S and, for each line, the index of its table and its index in
    that table, (n,) int64 each.
    """
    keys = np.concatenate([lines.keys for lines in sources])
    order = np.argsort(keys, kind="stable")  # fast on sorted runs
    firsts = np.cumsum([0, *(len(lines) for lines in sources)])
    source = np.searchsorted(firsts, order, side="right") - 1
    return keys[order], source, order - firsts[source]


def pieces(sources: list[BlockTable], source: np.ndarray, number: np.ndarray) -> Iterator[memoryview]:
    """Yield the bytes of merged lines, in as few pieces as possible."""
    bounds = groups(source)
    for first, end in pairwise(bounds.tolist()):
        yield from sources[source[first]].runs(number[first:end])


def _runs(numbers: np.ndarray) -> Iterator[tuple[int, int]]:
    """First and last of each run of consecutive numbers."""
    if len(numbers):
        breaks = np.flatnonzero(np.diff(numbers) != 1)
        firsts = np.concatenate([numbers[:1], numbers[breaks + 1]])
        lasts = np.concatenate([numbers[breaks], numbers[-1:]])
        yield from zip(firsts.tolist(), lasts.tolist(), strict=True)
