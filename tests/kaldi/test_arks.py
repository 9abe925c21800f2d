"""Arks against kaldiio, pydrobert-kaldi and kaldi_native_io."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import kaldiio
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.kaldi.arks import (
    ArkWriter,
    Location,
    MatrixArk,
    iter_vectors,
    merge,
    read_array,
    read_scp,
)

MATRICES = {
    "a-1": np.random.default_rng(1).normal(8, 3, (57, 80)).astype(np.float32),
    "a-2": np.full((3, 80), -15.9424, dtype=np.float32),  # digital silence: no range
    "b-1": np.random.default_rng(2).normal(-4, 1e-3, (1, 80)).astype(np.float32),
    "b-2": np.random.default_rng(3).uniform(-1e4, 1e4, (400, 80)).astype(np.float32),
}


def test_the_sum_depends_on_content_not_on_order_or_arks(tmp_path: Path) -> None:
    def sum_of(*names: str, **changed: np.ndarray) -> int:
        with ArkWriter(tmp_path / "x") as writer:
            for name in names:
                writer.write(name, (MATRICES | changed)[name])
        return writer.sum

    whole = sum_of(*MATRICES)
    assert whole == sum_of(*reversed(MATRICES)) == sum_of("a-1", "b-2") + sum_of("b-1", "a-2")
    assert len({whole, sum_of("a-1", "a-2", "b-1"), sum_of(*MATRICES, **{"b-1": MATRICES["b-1"] + 1})}) == 3


@pytest.fixture(scope="module")
def scp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prefix = tmp_path_factory.mktemp("arks") / "feats"
    with ArkWriter(prefix) as writer:
        for key in ("b-2", "a-1", "b-1", "a-2"):  # not in their order
            writer.write(key, MATRICES[key])
    return Path(f"{prefix}.scp")


def rows(scp: Path, key: str, start: int = 0, count: int | None = None) -> np.ndarray:
    location = read_scp(scp)[key]
    return MatrixArk(location.ark).rows(key, location.offset, start, count)


def test_the_scp_is_sorted_and_absolute(scp: Path) -> None:
    assert list(read_scp(scp)) == sorted(MATRICES)
    assert {location.ark for location in read_scp(scp).values()} == {str(scp.with_suffix(".ark").absolute())}


def test_values_are_exact_to_half_a_quantisation_step(scp: Path) -> None:
    for key, matrix in MATRICES.items():
        step = (matrix.max() - matrix.min()) / 255
        assert np.abs(rows(scp, key) - matrix).max() <= 0.502 * step + 1e-5 * np.abs(matrix).max()


def assert_same(actual: np.ndarray, expected: np.ndarray) -> None:
    """Check that they are equal, except for float32 rounding of low + step * byte."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-7 * np.abs(expected).max())


def native_matrix(scp: Path, key: str) -> np.ndarray:
    """Read with kaldi_native_io; its arrays are only valid while the reader exists, so copy."""
    reader = pytest.importorskip("kaldi_native_io").RandomAccessFloatMatrixReader(f"scp:{scp}")
    return np.array(reader[key])


@pytest.mark.parametrize("key", MATRICES)
def test_other_readers_read_the_same(scp: Path, key: str) -> None:
    pydrobert = pytest.importorskip("pydrobert.kaldi.io")
    with pydrobert.open(f"scp:{scp}", "bm", mode="r+") as reader:
        assert_same(rows(scp, key), reader[key])
    assert_same(rows(scp, key), native_matrix(scp, key))
    assert_same(rows(scp, key), kaldiio.load_scp(str(scp))[key])


def test_arks_of_kaldi_are_read(tmp_path: Path) -> None:
    native = pytest.importorskip("kaldi_native_io")
    with native.CompressedMatrixWriter(f"ark,scp:{tmp_path}/x.ark,{tmp_path}/x.scp") as writer:
        for key, matrix in MATRICES.items():
            writer.write(key, matrix, native.CompressionMethod.kOneByteAuto)
    for key in MATRICES:
        assert_same(rows(tmp_path / "x.scp", key), native_matrix(tmp_path / "x.scp", key))


@given(first=st.integers(0, 399), count=st.integers(1, 400))
def test_a_range_of_rows_equals_that_part_of_the_whole(scp: Path, first: int, count: int) -> None:
    count = min(count, 400 - first)
    np.testing.assert_array_equal(rows(scp, "b-2", first, count), rows(scp, "b-2")[first : first + count])


def test_rows_beyond_the_utterance_are_refused(scp: Path) -> None:
    with pytest.raises(InputError, match=r"'a-1' has 57 frames, \[50, 60\) were requested"):
        rows(scp, "a-1", 50, 10)


def arrays(scp: Path) -> dict[str, np.ndarray]:
    return {key: read_array(key, location) for key, location in read_scp(scp).items()}


@pytest.mark.parametrize("method", [None, 2, 3, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_kaldi_format_is_read_completely(tmp_path: Path, method: int | None, dtype: type) -> None:
    matrices = {key: MATRICES[key].astype(dtype) for key in ("a-1", "b-2")}
    kaldiio.save_ark(f"{tmp_path}/x.ark", matrices, scp=f"{tmp_path}/x.scp", compression_method=method)
    for key, matrix in arrays(tmp_path / "x.scp").items():
        assert_same(matrix, kaldiio.load_scp(f"{tmp_path}/x.scp")[key])
        assert matrix.dtype == np.float32
        assert matrix.flags.writeable


def test_vectors_are_exact(tmp_path: Path) -> None:
    native = pytest.importorskip("kaldi_native_io")
    vectors = {key: matrix[0] for key, matrix in MATRICES.items()}
    with ArkWriter(tmp_path / "xvector") as writer:
        for key, vector in vectors.items():
            writer.write(key, vector)
    for key, vector in arrays(tmp_path / "xvector.scp").items():
        np.testing.assert_array_equal(vector, vectors[key])
    for key, vector in native.SequentialFloatVectorReader(f"scp:{tmp_path}/xvector.scp"):
        np.testing.assert_array_equal(vector, vectors[key])


# bad arks


def cut(scp: Path, tmp_path: Path, size: int) -> Path:
    """Copy the first `size` bytes of an ark, and its scp."""
    whole = scp.with_suffix(".ark")
    (tmp_path / "feats.ark").write_bytes(whole.read_bytes()[:size])
    (tmp_path / "feats.scp").write_text(scp.read_text().replace(str(whole), f"{tmp_path}/feats.ark"))
    return tmp_path / "feats.scp"


def test_vectors_are_read_one_after_another_whatever_their_kind(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    kinds = {"a": np.float32, "b": np.float64, "c": np.float32, "d": np.float32}
    vectors = {key: rng.standard_normal(5).astype(kind) for key, kind in kinds.items()}
    for ark, keys in (("one", "ca"), ("two", "bd")):  # not in the order of keys
        kaldiio.save_ark(f"{tmp_path}/{ark}.ark", {key: vectors[key] for key in keys}, scp=f"{tmp_path}/{ark}.scp")
    lines = sorted("".join((tmp_path / f"{ark}.scp").read_text() for ark in ("one", "two")).splitlines(keepends=True))
    (tmp_path / "all.scp").write_text("".join(lines))
    read = list(iter_vectors(tmp_path / "all.scp"))
    assert [(number, key) for number, key, _ in read] == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]
    for _, key, vector in read:
        assert vector.dtype == np.float32
        np.testing.assert_array_equal(vector, vectors[key].astype(np.float32))
    assert [key for _, key, _ in iter_vectors(tmp_path / "all.scp", only={"d", "b"})] == ["b", "d"]
    with (tmp_path / "two.ark").open("r+b") as file:
        file.truncate((tmp_path / "two.ark").stat().st_size - 4)
    with pytest.raises(InputError, match=r"two\.ark: the ark was cut: utterance 'd'"):
        list(iter_vectors(tmp_path / "all.scp"))
    (tmp_path / "one.ark").unlink()
    with pytest.raises(InputError, match=r"one\.ark: no such ark"):
        list(iter_vectors(tmp_path / "all.scp"))


@pytest.mark.parametrize("missing", [1, 80 * 57 + 5, 80 * 57 + 24])  # in the data, in the header, before the offset
def test_a_truncated_ark_is_an_error_with_its_utterance(scp: Path, tmp_path: Path, missing: int) -> None:
    end = read_scp(scp)["a-1"].offset + 22 + 57 * 80
    path = cut(scp, tmp_path, end - missing)
    np.testing.assert_array_equal(rows(path, "b-2"), rows(scp, "b-2"))
    with pytest.raises(InputError, match=rf"{tmp_path}/feats.ark: the ark was cut: utterance 'a-1'"):
        rows(path, "a-1")
    with pytest.raises(InputError, match="'a-1'"):
        read_array("a-1", read_scp(path)["a-1"])


def test_a_truncated_ark_of_floats_is_an_error(tmp_path: Path) -> None:
    kaldiio.save_ark(f"{tmp_path}/x.ark", {"a": MATRICES["a-1"]}, scp=f"{tmp_path}/x.scp")
    os.truncate(tmp_path / "x.ark", 1000)
    with pytest.raises(InputError, match=r"x.ark: the ark was cut: utterance 'a'"):
        arrays(tmp_path / "x.scp")


def test_a_missing_ark_is_named(scp: Path, tmp_path: Path) -> None:
    path = cut(scp, tmp_path, 100)
    (tmp_path / "feats.ark").unlink()
    with pytest.raises(InputError, match=r"feats.ark: no such ark"):
        rows(path, "a-1")


def test_an_empty_ark_is_named(scp: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"feats.ark: the ark is empty"):
        rows(cut(scp, tmp_path, 0), "a-1")


def test_a_wrong_offset_is_not_decoded(scp: Path) -> None:
    ark, offset = read_scp(scp)["a-1"]
    with pytest.raises(InputError, match="no matrix of one byte per value"):
        MatrixArk(ark).rows("a-1", offset + 1)


@pytest.mark.parametrize("value", ["copy-feats x.ark - |", "x.ark:12[0:5]"])
def test_pipes_and_ranges_in_an_scp_are_refused(tmp_path: Path, value: str) -> None:
    (tmp_path / "feats.scp").write_text(f"a {value}\n")
    with pytest.raises(InputError, match=r"feats.scp:1: .* is a pipe or a range"):
        read_scp(tmp_path / "feats.scp")


def test_an_entry_without_offset_starts_at_0(tmp_path: Path) -> None:
    (tmp_path / "feats.scp").write_text("a dir:with/x.mat\n")
    assert read_scp(tmp_path / "feats.scp") == {"a": Location("dir:with/x.mat", 0)}


# writing


@pytest.mark.parametrize("array", [np.array([[1.0, np.nan]]), np.array([np.inf]), np.empty((0, 80))])
def test_arrays_that_are_empty_or_not_finite_are_refused(tmp_path: Path, array: np.ndarray) -> None:
    with (
        ArkWriter(tmp_path / "x") as writer,
        pytest.raises(InputError, match="'a' is empty or holds values that are not"),
    ):
        writer.write("a", array)


@pytest.mark.parametrize("key", MATRICES)
@pytest.mark.parametrize("size", [1, 2, 56, 400])
def test_a_matrix_written_in_blocks_has_the_same_bytes(tmp_path: Path, key: str, size: int) -> None:
    matrix = MATRICES[key]
    with ArkWriter(tmp_path / "whole") as whole:
        whole.write("a", matrix)
        whole.write(key, matrix)
    with ArkWriter(tmp_path / "blocks") as blocks:
        blocks.write("a", matrix)
        count = blocks.write_blocks(key, (matrix[first : first + size] for first in range(0, len(matrix), size)))
    assert count == len(matrix)
    assert (tmp_path / "blocks.ark").read_bytes() == (tmp_path / "whole.ark").read_bytes()
    assert blocks.sum == whole.sum
    assert [place.offset for place in read_scp(tmp_path / "blocks.scp").values()] == [
        place.offset for place in read_scp(tmp_path / "whole.scp").values()
    ]


def test_an_interrupted_matrix_is_not_in_the_ark(tmp_path: Path) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield MATRICES["a-1"]
        yield MATRICES["b-2"]
        raise InputError("cut")

    with ArkWriter(tmp_path / "x") as writer:
        for key, blocks in (("a-1", broken()), ("a-2", iter([MATRICES["a-2"]] * 2 + [np.full((1, 80), np.inf)]))):
            with pytest.raises(InputError, match=r"^cut$|'a-2' is empty or holds values that are not finite"):
                writer.write_blocks(key, blocks)
        writer.write_blocks("b-1", [MATRICES["b-1"]])
    assert list(read_scp(tmp_path / "x.scp")) == ["b-1"]
    np.testing.assert_allclose(rows(tmp_path / "x.scp", "b-1"), MATRICES["b-1"], atol=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.ark", "x.scp"]


def test_a_key_is_written_once(tmp_path: Path) -> None:
    with ArkWriter(tmp_path / "x") as writer:
        writer.write("a", np.ones(3))
        with pytest.raises(InputError, match="'a' is written twice"):
            writer.write("a", np.ones(3))


def write_then_fail(prefix: Path) -> None:
    with ArkWriter(prefix) as writer:
        writer.write("new", np.ones(3))
        raise KeyboardInterrupt


def test_an_interrupted_ark_is_removed_and_the_old_one_is_kept(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_then_fail(tmp_path / "x")
    assert os.listdir(tmp_path) == []
    with ArkWriter(tmp_path / "x") as writer:
        writer.write("old", np.ones(3))
    with pytest.raises(KeyboardInterrupt):
        write_then_fail(tmp_path / "x")
    assert sorted(os.listdir(tmp_path)) == ["x.ark", "x.scp"]
    assert list(arrays(tmp_path / "x.scp")) == ["old"]


def test_a_full_disk_at_the_end_keeps_the_old_ark_and_scp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ArkWriter(tmp_path / "x") as writer:
        writer.write("old", np.ones(3))

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as caught, ArkWriter(tmp_path / "x") as writer:
        writer.write("new", np.ones(3))
    assert caught.value.filename == f"{tmp_path}/x.ark"
    assert sorted(os.listdir(tmp_path)) == ["x.ark", "x.scp"]
    assert list(arrays(tmp_path / "x.scp")) == ["old"]


def test_a_new_ark_never_has_an_old_scp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ArkWriter(tmp_path / "x") as writer:
        writer.write("old", np.ones(3))
    replace = os.replace

    def die_after_the_ark(source: Path, target: Path) -> None:
        if target.suffix == ".scp":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", die_after_the_ark)
    with pytest.raises(KeyboardInterrupt), ArkWriter(tmp_path / "x") as writer:
        writer.write("new", np.ones(3))
    assert os.listdir(tmp_path) == ["x.ark"]


FILL = """
import sys, numpy as np
from wespeaker_lite.kaldi.arks import ArkWriter
from wespeaker_lite.bin import run
def main():
    with ArkWriter(sys.argv[1]) as writer:
        for number in range(100):
            writer.write(f"u{number:03d}", np.random.default_rng(number).normal(size=(100, 80)))
run(main)
"""


def test_a_full_tmpfs_is_an_error_and_leaves_no_file(tmp_path: Path, repository: Path) -> None:
    """On a tmpfs of 200 kB, in a new mount namespace."""
    inside = f'mount -t tmpfs -o size=200k none {tmp_path} || exit 77; "$@"; code=$?; ls -A {tmp_path}; exit $code'
    command = ["unshare", "-rm", "bash", "-c", inside, "bash", sys.executable, "-c", FILL, f"{tmp_path}/feats"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=repository, check=False)
    except FileNotFoundError:
        pytest.skip("no unshare")
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no tmpfs can be mounted here")
    assert done.returncode == 1
    assert f"No space left on device: {tmp_path}/feats.ark" in done.stderr
    assert done.stdout == ""


# merging


def test_merged_parts_have_the_content_of_the_parts(tmp_path: Path) -> None:
    parts = [tmp_path / "part.1", tmp_path / "part.2"]
    for part, keys in zip(parts, (("b-1", "a-1"), ("a-2", "b-2")), strict=True):
        with ArkWriter(part) as writer:
            for key in keys:
                writer.write(key, MATRICES[key])
    merge(parts, tmp_path / "feats")
    merged = read_scp(tmp_path / "feats.scp")
    assert list(merged) == sorted(MATRICES)
    assert {location.ark for location in merged.values()} == {f"{tmp_path}/feats.ark"}
    for part in parts:
        for key in read_scp(f"{part}.scp"):
            np.testing.assert_array_equal(rows(tmp_path / "feats.scp", key), rows(Path(f"{part}.scp"), key))


def test_parts_that_share_a_key_are_not_merged(tmp_path: Path) -> None:
    for part in "ab":
        with ArkWriter(tmp_path / part) as writer:
            writer.write("same", np.ones(3))
    with pytest.raises(InputError, match=r"b.scp: 'same' is in another part too"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    assert not (tmp_path / "all.ark").exists()


@pytest.mark.parametrize(
    ("table", "said"),
    [("a 1\nb 1\n", "lack 1 utterances .* 0 others, such as 'a'"), ("a 1\n", "lack 1 .* 1 others, such as 'a'")],
)
def test_parts_must_have_the_keys_of_a_table(tmp_path: Path, table: str, said: str) -> None:
    with ArkWriter(tmp_path / "part") as writer:
        writer.write("b", np.ones(3))
    (tmp_path / "table").write_text(table)
    with pytest.raises(InputError, match=said):
        merge([tmp_path / "part"], tmp_path / "all", tmp_path / "table")
    assert not (tmp_path / "all.ark").exists()
    (tmp_path / "table").write_text("b 2\n")
    merge([tmp_path / "part"], tmp_path / "all", tmp_path / "table")
    assert (tmp_path / "all.ark").exists()
