"""Damaged or malicious arks and scp files: the result equals that of a simple decoder, or there is an error."""

import os
import pickle
import struct
from pathlib import Path

import kaldiio
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz.common import damaged, examples, outcome
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.extraction.embeddings import read_embeddings
from wespeaker_lite.kaldi.arks import (
    ByteMatrix,
    Location,
    MatrixArk,
    iter_scp,
    iter_vectors,
    merge,
    read_array,
)
from wespeaker_lite.kaldi.block_table import read_block_table

RNG = np.random.default_rng(5)
MATRIX = RNG.normal(3, 2, (4, 3)).astype(np.float32)
SIZES = [-(2**31), -1, 0, 1, 2, 3, 4, 5, 255, 2**15, 2**31 - 1]


def written(array: np.ndarray, method: int | None = None) -> bytes:
    """The bytes of an array after its key."""
    path = Path("/dev/shm" if os.path.isdir("/dev/shm") else "/tmp") / f"fuzz.{os.getpid()}.ark"
    kaldiio.save_ark(str(path), {"k": array}, compression_method=method)
    content = path.read_bytes()[2:]
    path.unlink()
    return content


KINDS = {
    "FM": written(MATRIX),
    "DM": written(MATRIX.astype(np.float64)),
    "FV": written(MATRIX[0]),
    "DV": written(MATRIX[0].astype(np.float64)),
    "CM": written(MATRIX, 2),
    "CM2": written(MATRIX, 3),
    "CM3": written(MATRIX, 5),
}


def read_simply(content: bytes) -> np.ndarray | None:
    """Decode an array value by value; None if it is invalid, empty or truncated."""
    mark, _, body = content.partition(b" ")
    try:
        match mark:
            case b"\0BFV" | b"\0BDV":
                width, rows = struct.unpack_from("<Bi", body)
                shape, widths, begin = (rows,), (width,), 5
            case b"\0BFM" | b"\0BDM":
                one, rows, other, columns = struct.unpack_from("<BiBi", body)
                shape, widths, begin = (rows, columns), (one, other), 10
            case b"\0BCM" | b"\0BCM2" | b"\0BCM3":
                low, span, rows, columns = struct.unpack_from("<ffii", body)
                shape, widths, begin = (rows, columns), (4,), 16
            case _:
                return None
        if min(shape) < 1 or set(widths) != {4} or np.prod([float(n) for n in shape]) > len(content):
            return None
        count = int(np.prod(shape))
        if mark[2:] in (b"FV", b"FM", b"DV", b"DM"):
            letter = "f" if mark[2:3] == b"F" else "d"
            return np.array(struct.unpack_from(f"<{count}{letter}", body, begin)).reshape(shape)
        if mark == b"\0BCM":
            heads = struct.unpack_from(f"<{4 * shape[1]}H", body, begin)
            codes = struct.unpack_from(f"<{count}B", body, begin + 8 * shape[1])
            columns = []
            for column in range(shape[1]):
                knots = [low + span * head / 65535 for head in heads[4 * column : 4 * column + 4]]
                own = codes[column * shape[0] : (column + 1) * shape[0]]
                columns.append([_between(code, knots) for code in own])
            return np.array(columns).T
        letter, top = ("H", 65535) if mark == b"\0BCM2" else ("B", 255)
        codes = struct.unpack_from(f"<{count}{letter}", body, begin)
        return np.array([low + span * code / top for code in codes]).reshape(shape)
    except struct.error:
        return None


def _between(code: int, knots: list[float]) -> float:
    """A byte of Kaldi's speech-feature compression: linear between four percentiles, at 0, 64, 192 and 255."""
    places = (0, 64, 192, 255)
    part = 0 if code <= 64 else 1 if code <= 192 else 2
    share = (code - places[part]) / (places[part + 1] - places[part])
    return knots[part] + share * (knots[part + 1] - knots[part])


def resized(content: bytes, place: int, size: int) -> bytes:
    """The content with another integer at a position."""
    return content[:place] + struct.pack("<i", size) + content[place + 4 :]


CONTENT = st.sampled_from(sorted(KINDS)).flatmap(
    lambda kind: st.one_of(
        damaged(KINDS[kind]),
        st.builds(resized, st.just(KINDS[kind]), st.sampled_from(range(5, 19)), st.sampled_from(SIZES)),
        st.integers(0, len(KINDS[kind])).map(lambda size: KINDS[kind][:size]),
    )
)


def assert_same(found: np.ndarray | None, expected: np.ndarray | None) -> None:
    assert (found is None) == (expected is None)
    if found is not None:
        assert found.dtype == np.float32
        assert found.shape == expected.shape
        scale = np.abs(np.nan_to_num(expected, posinf=0, neginf=0)).max()
        with np.errstate(over="ignore", invalid="ignore"):
            np.testing.assert_allclose(found, expected.astype(np.float32), rtol=1e-5, atol=1e-5 * min(scale, 1e30))


@examples(150)
@given(content=st.one_of(CONTENT, st.binary(max_size=30)), before=st.binary(max_size=3))
@example(content=resized(KINDS["FV"], 6, 2**31 - 1), before=b"")
@example(content=resized(resized(KINDS["CM3"], 14, 2**31 - 1), 18, 2**31 - 1), before=b"")
@example(content=resized(KINDS["CM3"], 6, 0x7F800000), before=b"")  # infinite
def test_arrays_are_read_as_by_a_simple_decoder(folder: Path, content: bytes, before: bytes) -> None:
    ark, scp = folder / "x.ark", folder / "x.scp"
    ark.write_bytes(before + content)
    scp.write_text(f"a {ark}:{len(before)}\n")
    expected = read_simply(content)
    with np.errstate(all="ignore"):
        assert_same(outcome(lambda: read_array("a", Location(str(ark), len(before)))), expected)
        vectors = outcome(lambda: list(iter_vectors(scp)))
        assert_same(vectors[0][2] if vectors else None, expected)
    embeddings = outcome(lambda: read_embeddings(scp))
    is_vector = expected is not None and expected.ndim == 1
    assert (embeddings is not None) == is_vector
    outcome(lambda: merge([folder / "x"], folder / "y"))
    rows = outcome(lambda: _rows(ark, len(before)))
    if rows is not None:
        assert content.startswith(b"\0BCM3 ")
        assert np.isfinite([rows.low, rows.step]).all()
        assert_same(rows.low + rows.step * rows.data.reshape(rows.rows, rows.columns).astype(np.float32), expected)


def _rows(ark: Path, offset: int) -> ByteMatrix:
    return MatrixArk(ark).matrix("a", offset)


OFFSETS = ["0", "1", "2", "-1", "00", "+1", "1.0", "1e1", "", " ", "x", "\u0661", "\u00b2", "9" * 18, "9" * 19]


@examples(60)
@given(offsets=st.lists(st.sampled_from(OFFSETS), min_size=1, max_size=3), end=st.sampled_from(["", "|", "]", "[0:1]"]))
@example(offsets=["2", "9" * 5000], end="")  # more digits than int() takes
def test_offsets_lead_to_a_place_in_the_ark_or_to_an_error(folder: Path, offsets: list[str], end: str) -> None:
    ark, scp = folder / "o.ark", folder / "o.scp"
    ark.write_bytes(b"kk" + KINDS["FV"])
    scp.write_text("".join(f"u{n} {ark}:{offset}{end}\n" for n, offset in enumerate(offsets)))
    vectors = outcome(lambda: list(iter_vectors(scp)))
    assert (vectors is not None) == (set(offsets) == {"2"} and not end)
    outcome(lambda: read_block_table(scp).located())
    for row in outcome(lambda: list(iter_scp(scp))) or ():
        outcome(lambda row=row: read_array(row[1], row[2]))
        outcome(lambda row=row: _rows(row[2].ark, row[2].offset))


class Evil:
    """Creates a file when it is unpickled."""

    def __reduce__(self) -> tuple:
        return (os.mkdir, ("BAD",))


@pytest.mark.parametrize("name", ["x.ark", "mkdir BAD |", "| mkdir BAD", "mkdir BAD;x.ark", "$(mkdir BAD)"])
def test_an_ark_runs_no_code_whatever_is_in_it_or_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(b"PKL" + pickle.dumps(Evil()))
    with pytest.raises(InputError, match="no binary matrix or vector"):
        read_array("a", Location(name, 0))
    (tmp_path / "a.scp").write_text(f"a {name}:0\n")
    with pytest.raises(InputError):
        list(iter_vectors("a.scp"))
    assert not (tmp_path / "BAD").exists()
