"""Tables as blocks of bytes, against the reader that works line by line."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.files import write_lines
from wespeaker_lite.kaldi import block_table as lines
from wespeaker_lite.kaldi.block_table import decimals, groups, merged, numbered, pieces, read_block_table
from wespeaker_lite.kaldi.tables import read_table, write_table

PLAIN = st.text(alphabet="aBz019-_./", min_size=1, max_size=8)
ANY = st.text(alphabet="aBz019-_./é\uffff\U0001f600", min_size=1, max_size=8)


def as_table(path: Path) -> dict[str, str]:
    block = read_block_table(path)
    return {key.decode(): block.value(number) for number, key in enumerate(block.keys.tolist())}


@settings(deadline=None)
@given(table=st.one_of(st.dictionaries(PLAIN, PLAIN, min_size=1), st.dictionaries(ANY, ANY, min_size=1)))
def test_a_block_has_the_content_of_the_table(tmp_path_factory: pytest.TempPathFactory, table: dict[str, str]) -> None:
    path = tmp_path_factory.mktemp("lines") / "table"
    write_table(path, {key: f"{value} x" for key, value in table.items()})
    assert as_table(path) == read_table(path)
    assert [value.decode() for value in read_block_table(path).column().tolist()] == list(read_table(path).values())


@pytest.mark.parametrize("content", ["a\tx\nb  y z \nc \t z\n", "a x\r\nb y\r\n", "a x  y\nb \u00e9\n"])
def test_irregular_tables_are_read_as_by_the_line_reader(tmp_path: Path, content: str) -> None:
    (tmp_path / "table").write_bytes(content.encode())
    assert as_table(tmp_path / "table") == read_table(tmp_path / "table")


@pytest.mark.parametrize(
    "content",
    ["", "a x\nb", "a x\nb y", "a x\n\nb y\n", "a x\n b\n", "a x\nb \n", "b x\na y\n", "a x\na y\n", "a \xff\n"],
)
def test_errors_equal_those_of_the_line_reader(tmp_path: Path, content: str) -> None:
    (tmp_path / "table").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError) as expected:
        read_table(tmp_path / "table")
    with pytest.raises(InputError) as found:
        read_block_table(tmp_path / "table")
    assert str(found.value) == str(expected.value)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such file"):
        read_block_table(tmp_path / "nowhere")


def test_long_values_and_many_lines_are_split_correctly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_BLOCK", 3)
    table = {f"k{number}": "v" * (5000 * (number == 6) + number) for number in range(1, 9)}
    write_table(tmp_path / "table", table)
    assert [value.decode() for value in read_block_table(tmp_path / "table").column().tolist()] == list(table.values())


def test_locations_are_split_at_the_last_colon(tmp_path: Path) -> None:
    values = ["/x/a.ark:12", "c:/b.ark:3", "plain", "a.ark:", ":7", "a.ark:1e3", f"a.ark:{10**17}", f"a.ark:{10**18}"]
    write_table(tmp_path / "scp", {f"k{number}": value for number, value in enumerate(values)})
    arks, offsets = read_block_table(tmp_path / "scp").located()
    assert offsets.tolist() == [12, 3, -1, -1, -1, -1, 10**17, -1]
    assert arks[[0, 1, 6]].tolist() == [b"/x/a.ark", b"c:/b.ark", b"a.ark"]


def test_decimals_are_whole_numbers_only() -> None:
    words = [b"0", b"007", b"120", b"-1", b"1.5", b"", b"1 2", b"\xb2", b"9" * 18, b"9" * 19]
    assert decimals(np.array(words)).tolist() == [0, 7, 120, -1, -1, -1, -1, -1, 10**18 - 1, -1]


def test_equal_values_are_numbered_in_byte_order() -> None:
    column = np.array([b"b", b"b", b"a", b"c", b"b"])
    values, numbers = numbered(column)
    assert (values, numbers.tolist()) == (["a", "b", "c"], [1, 1, 0, 2, 1])
    assert groups(column).tolist() == [0, 2, 3, 4, 5]


@settings(deadline=None)
@given(tables=st.lists(st.dictionaries(PLAIN, PLAIN, min_size=1), min_size=1, max_size=3))
def test_merged_tables_are_in_order(tmp_path_factory: pytest.TempPathFactory, tables: list[dict[str, str]]) -> None:
    folder = tmp_path_factory.mktemp("merged")
    for number, table in enumerate(tables):
        write_table(folder / f"{number}", {f"{key}{number}": value for key, value in table.items()})
    sources = [read_block_table(folder / f"{number}") for number in range(len(tables))]
    write_lines(folder / "all", pieces(sources, *merged(sources)[1:]))
    rows = sorted(row for number in range(len(tables)) for row in read_table(folder / f"{number}").items())
    assert (folder / "all").read_text() == "".join(f"{key} {value}\n" for key, value in rows)
    assert list(sources[0].runs(np.arange(0))) == []
