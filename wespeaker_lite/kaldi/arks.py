"""Kaldi archives. Matrices of one byte per value are memory-mapped and read by rows; others are read whole."""

import hashlib
import io
import itertools
import math
import mmap
import os
import re
import shutil
import struct
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

import kaldiio
import kaldiio.matio
import numpy as np
from kaldiio.compression_header import GlobalHeader

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.files import replacing
from wespeaker_lite.kaldi.tables import iter_table, sorted_keys

ONE_BYTE = 5  # the number that Kaldi and kaldiio give to "one byte per value, row by row, one range for the matrix"
_MARK = b"\0BCM3 "
_HEADER = struct.Struct("<6sffii")  # mark, minimum, range, rows, columns; rows * columns bytes follow
_VECTOR = struct.Struct("<5sBi")  # mark, bytes in a size, size; that many floats follow
_OFFSET = re.compile(r"\d{1,18}", re.ASCII)
_LAYOUTS = {  # mark -> header (mark and sizes), bytes per value, extra bytes per column
    b"\0BFV ": (struct.Struct("<5sxi"), 4, 0),
    b"\0BDV ": (struct.Struct("<5sxi"), 8, 0),
    b"\0BFM ": (struct.Struct("<5sxixi"), 4, 0),
    b"\0BDM ": (struct.Struct("<5sxixi"), 8, 0),
    b"\0BCM ": (struct.Struct("<5s8xii"), 1, 8),
    b"\0BCM2 ": (struct.Struct("<6s8xii"), 2, 0),
    _MARK: (struct.Struct("<6s8xii"), 1, 0),
}


class Location(NamedTuple):
    """Where the value of a key begins: an ark and a byte offset."""

    ark: str
    offset: int


class ArkWriter:
    """Write `prefix`.ark and `prefix`.scp: matrices with one byte per value, vectors as float32.

    A context manager: both files appear if the block succeeds, and none if it fails. The scp has the absolute path of
    the ark and is sorted by key. `sum` adds up the SHA-256 of all entries, as integers. It does not depend on their
    order, and the sums of several arks can be added. `digest` is the SHA-256 of the ark file.

    Raises:
        InputError: if a key is written twice, or an array is empty or not finite.
        OSError: naming the file, if the disk is full.
    """

    def __init__(self, prefix: str | Path) -> None:
        self.ark = os.path.abspath(f"{prefix}.ark")
        self.scp = os.path.abspath(f"{prefix}.scp")
        self.sum = 0
        self.digest = hashlib.sha256()
        self._offsets: dict[str, int] = {}

    def __enter__(self) -> Self:
        self._pair = _ark_and_scp(self.ark, self.scp, self._offsets)
        self._file = self._pair.__enter__()
        return self

    def __exit__(self, *failure: object) -> None:
        self._pair.__exit__(*failure)

    def write(self, key: str, array: np.ndarray) -> None:
        """Append a matrix (rows, columns) or a vector (size,)."""
        self._check(key, array)
        method = ONE_BYTE if array.ndim == 2 else None
        entry = io.BytesIO()
        kaldiio.save_ark(entry, {key: array.astype(np.float32, copy=False)}, compression_method=method)
        self._append(key, [entry.getbuffer()])

    def write_blocks(self, key: str, blocks: Iterable[np.ndarray]) -> int:
        """Append a matrix that comes in blocks (rows, columns); return its number of rows.

        The bytes are those of `write`, but only one block is in memory. The blocks go to a temporary file first,
        because the range of the values is known only at the end. If `blocks` raises, nothing is added to the ark.
        """
        blocks = iter(blocks)
        first = list(itertools.islice(blocks, 2))
        if len(first) == 1:
            self.write(key, first[0])
            return len(first[0])
        with tempfile.TemporaryFile(dir=os.path.dirname(self.ark)) as file:
            low, high, sizes = math.inf, -math.inf, []
            for block in itertools.chain(first, blocks):
                self._check(key, block)
                low, high = min(low, block.min()), max(high, block.max())
                sizes.append(block.shape)
                file.write(np.ascontiguousarray(block, np.float32))
            file.seek(0)
            self._append(key, _compressed(key, file, sizes, np.array([[low, high]], np.float32)))
        return sum(rows for rows, _ in sizes)

    def _check(self, key: str, array: np.ndarray) -> None:
        if key in self._offsets:
            raise InputError(f"{self.ark}: {key!r} is written twice")
        if array.size == 0 or not np.isfinite(array).all():
            raise InputError(f"{self.ark}: the array of {key!r} is empty or holds values that are not finite")

    def _append(self, key: str, entry: Iterable[bytes | memoryview]) -> None:
        """Write the parts of an entry. The first part begins with the key."""
        self._offsets[key] = self._file.tell() + len(key.encode()) + 1
        digest = hashlib.sha256()
        for part in entry:
            self._file.write(part)
            digest.update(part)
            self.digest.update(part)
        self.sum += int.from_bytes(digest.digest())


def _compressed(key: str, file: BinaryIO, sizes: list[tuple[int, int]], ends: np.ndarray) -> Iterator[bytes]:
    """The entry of a matrix. `file` has its rows in blocks of `sizes`; `ends` (1, 2) is the range of its values."""
    header = GlobalHeader.compute(ends, ONE_BYTE)
    header.rows, header.cols = sum(rows for rows, _ in sizes), sizes[0][1]
    head = io.BytesIO()
    header.write(head)
    yield f"{key} \0B".encode() + head.getvalue()
    for rows, columns in sizes:
        block = np.frombuffer(file.read(4 * rows * columns), np.float32).reshape(rows, columns)
        yield header.float_to_uint(block).tobytes()


def as_in_ark(matrix: np.ndarray) -> np.ndarray:
    """Round a matrix (rows, columns) as an ark with one byte per value does: float32 of the same shape."""
    entry = io.BytesIO()
    kaldiio.save_ark(entry, {"x": matrix.astype(np.float32, copy=False)}, compression_method=ONE_BYTE)
    entry.seek(len(b"x "))
    return np.array(kaldiio.matio.read_matrix_or_vector(entry), dtype=np.float32)


@contextmanager
def _ark_and_scp(ark: str, scp: str, offsets: dict[str, int]) -> Iterator:
    """Open both files. At the end, write the scp from `offsets` and move both into place."""
    with replacing(scp) as scp_file, replacing(ark) as ark_file:
        yield ark_file
        scp_file.writelines(f"{key} {ark}:{offsets[key]}\n".encode() for key in sorted_keys(offsets))
        for file in (ark_file, scp_file):  # if the disk is full, fail before the old files change
            file.flush()
            os.fsync(file.fileno())
        Path(scp).unlink(missing_ok=True)  # an old scp has wrong offsets for the new ark


def merge(parts: Sequence[str | Path], prefix: str | Path, table: str | Path = "") -> None:
    """Join the arks of several jobs, given by prefix, into `prefix`.ark and `prefix`.scp. The parts are kept.

    table: a table that must have the same keys as the parts together, if any.

    Raises:
        InputError: if two parts have the same key, a part's ark is missing or cut, or the keys differ from `table`.
    """
    ark, scp = os.path.abspath(f"{prefix}.ark"), os.path.abspath(f"{prefix}.scp")
    offsets: dict[str, int] = {}
    with _ark_and_scp(ark, scp, offsets) as joined:
        for part in parts:
            base = joined.tell()
            for key, (_, offset) in read_scp(f"{part}.scp").items():
                if key in offsets:
                    raise InputError(f"{part}.scp: {key!r} is in another part too")
                _check_offset(key, f"{part}.ark", offset)
                offsets[key] = base + offset
            with open(f"{part}.ark", "rb") as file:
                shutil.copyfileobj(file, joined, 1 << 24)
        if table:
            _check_keys(prefix, offsets.keys(), table)


def _check_keys(prefix: str | Path, found: Set[str], table: str | Path) -> None:
    expected = {key for _, key, _ in iter_table(table)}
    if found != expected:
        raise InputError(
            f"{prefix}.ark would lack {len(expected - found)} utterances of {table}, and have "
            f"{len(found - expected)} others, such as {min(found ^ expected)!r}"
        )


def _check_offset(key: str, ark: str, offset: int) -> None:
    if not os.path.exists(ark):
        raise InputError(f"{ark}: no such ark; utterance {key!r} should be in it")
    if offset >= os.path.getsize(ark):
        raise _cut(key, ark)


def _cut(key: str, ark: str | Path) -> InputError:
    return InputError(f"{ark}: the ark was cut: utterance {key!r} ends beyond the end of the file; make the ark again")


def iter_scp(path: str | Path) -> Iterator[tuple[int, str, Location]]:
    """Yield line number, key and location of every entry of an scp file.

    Raises:
        InputError: naming file and line, as `iter_table`, and for pipes and ranges, which have no offset.
    """
    for number, key, value in iter_table(path):
        ark, _, offset = value.rpartition(":")
        if value.endswith(("|", "]")):
            raise InputError(f"{path}:{number}: {value!r} is a pipe or a range; only `ark:offset` can be read here")
        yield number, key, Location(ark, int(offset)) if _OFFSET.fullmatch(offset) and ark else Location(value, 0)


def read_scp(path: str | Path) -> dict[str, Location]:
    """Read an scp file into a dict of key to location.

    Raises:
        InputError: as `iter_scp`.
    """
    return {key: location for _, key, location in iter_scp(path)}


def read_array(key: str, location: Location) -> np.ndarray:
    """Read a matrix or vector in any of Kaldi's binary formats, as float32.

    Raises:
        InputError: naming utterance and ark, if the ark is missing or cut, or has no array at this offset.
    """
    _check_offset(key, *location)
    with open(location.ark, "rb") as file:
        return _read_array(file, os.path.getsize(location.ark), key, location)


def read_rows(key: str, location: Location, first: int, last: int) -> np.ndarray:
    """Read rows [first, last) of a matrix, as float32; of one with a byte per value the others are not read.

    Raises:
        InputError: as `read_array`, and where the matrix has fewer rows.
    """
    _check_offset(key, *location)
    with open(location.ark, "rb") as file:
        file.seek(location.offset)
        if file.read(len(_MARK)) == _MARK:
            return MatrixArk(location.ark).rows(key, location.offset, first, last - first)
    array = read_array(key, location)
    if len(array) < last:
        raise InputError(f"{location.ark}: utterance {key!r} has {len(array)} frames, [{first}, {last}) were asked for")
    return array[first:last]


def _read_array(file: BinaryIO, end: int, key: str, location: Location) -> np.ndarray:
    """Pass the bytes of one array to kaldiio. Given a name or a file, it would also run a command or a pickle."""
    file.seek(location.offset)
    size = _size(file.read(_HEADER.size))
    if location.offset + size > end:
        raise _cut(key, location.ark)
    file.seek(location.offset)
    try:
        array = kaldiio.matio.read_matrix_or_vector(io.BytesIO(file.read(size)))
    except (ValueError, AssertionError, struct.error) as error:
        raise InputError(
            f"{location.ark}: cannot read {key!r}: no binary matrix or vector of Kaldi's at {location.offset}, or the "
            "ark was cut; make it again (of a text ark, copy-matrix and copy-vector make a binary one)"
        ) from error
    return np.array(array, dtype=np.float32)


def _size(head: bytes) -> int:
    """The size in bytes of the array that begins with `head`; 0 if it is no array or an empty one."""
    header, value, column = _LAYOUTS.get(head[: head.find(b" ") + 1], (_HEADER, 0, 0))
    if not value or len(head) < header.size:
        return 0
    _, *shape = header.unpack_from(head)
    return header.size + value * math.prod(shape) + column * shape[-1] if min(shape) > 0 else 0


def iter_vectors(scp: str | Path, only: Collection[str] | None = None) -> Iterator[tuple[int, str, np.ndarray]]:
    """Yield line number, key and float32 array of every entry of an scp file, or of those with a key in `only`.

    The ark stays open between entries, and float vectors are read from it directly. This is ten times faster than
    `read_array`, which reads all other formats.

    Raises:
        InputError: as `iter_scp` and `read_array`.
    """
    with ExitStack() as opened:
        ark, end, file = "", 0, None
        for number, key, location in iter_scp(scp):
            if only is not None and key not in only:
                continue
            if location.ark != ark or location.offset >= end:
                _check_offset(key, *location)
                opened.close()
                end = os.path.getsize(location.ark)
                ark, file = location.ark, opened.enter_context(open(location.ark, "rb", buffering=1 << 16))
            yield number, key, _read_vector(file, end, key, location)


def _read_vector(file: BinaryIO, end: int, key: str, location: Location) -> np.ndarray:
    file.seek(location.offset)
    header = file.read(_VECTOR.size)
    if len(header) == _VECTOR.size:
        mark, width, size = _VECTOR.unpack(header)
        if mark == b"\0BFV " and width == 4 and size > 0:
            if location.offset + _VECTOR.size + 4 * size > end:
                raise _cut(key, location.ark)
            values = file.read(4 * size)
            return np.frombuffer(values, "<f4")
    return _read_array(file, end, key, location)


class ByteMatrix(NamedTuple):
    """A memory-mapped matrix of one byte per value: value = low + step * byte."""

    low: float
    step: float
    rows: int
    columns: int
    data: np.ndarray  # (rows * columns,) uint8, a view of the map, not yet read


class MatrixArk:
    """Random access to the matrices of an ark by a memory map. Only the requested rows are read.

    The format is Kaldi's CompressedMatrix with one byte per value (token CM3).

    Raises:
        InputError: if the ark is missing or empty.
    """

    def __init__(self, ark: str | Path) -> None:
        self.ark = ark
        try:
            with open(ark, "rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except FileNotFoundError:
            raise InputError(f"{ark}: no such ark; run the feature stage again") from None
        except ValueError as error:  # an empty file cannot be mapped
            raise InputError(f"{ark}: the ark is empty; run the feature stage again") from error
        self._bytes = np.frombuffer(self._map, dtype=np.uint8)

    def matrix(self, key: str, offset: int) -> ByteMatrix:
        """Find the matrix of `key` at `offset`.

        Raises:
            InputError: if the ark ends too early, or has no such matrix at `offset`.
        """
        begin = offset + _HEADER.size
        if begin > len(self._bytes):
            raise _cut(key, self.ark)
        mark, low, span, rows, columns = _HEADER.unpack_from(self._map, offset)
        if mark != _MARK or rows < 1 or columns < 1 or not math.isfinite(low + span):
            raise InputError(
                f"{self.ark}: no matrix of one byte per value at {offset}, where utterance {key!r} should be: "
                "run the feature stage again, or copy-feats --compression-method=5"
            )
        end = begin + rows * columns
        if end > len(self._bytes):
            raise _cut(key, self.ark)
        return ByteMatrix(low, span / 255.0, rows, columns, self._bytes[begin:end])

    def rows(self, key: str, offset: int, start: int = 0, count: int | None = None) -> np.ndarray:
        """Decode rows [start, start + count), by default all from `start` on, to float32 (count, columns).

        Raises:
            InputError: as `matrix`, and if the matrix has fewer rows.
        """
        low, step, rows, columns, data = self.matrix(key, offset)
        stop = rows if count is None else start + count
        if not 0 <= start <= stop <= rows:
            raise InputError(f"{self.ark}: utterance {key!r} has {rows} frames, [{start}, {stop}) were requested")
        values = data[start * columns : stop * columns].reshape(-1, columns).astype(np.float32)
        values *= np.float32(step)
        values += np.float32(low)
        return values
