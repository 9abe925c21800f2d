"""Kaldi text tables."""

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.files import write_lines
from wespeaker_lite.kaldi.tables import (
    iter_table,
    read_table,
    sorted_keys,
    spk2utt_of,
    write_table,
)

# the words of real lists, and characters whose order differs between locales or between UTF-8 and UTF-16
WORDS = st.text(alphabet="aBz019-_./é\uffff\U0001f600", min_size=1, max_size=8)


@settings(deadline=None)  # a slow disk is no fault
@given(table=st.dictionaries(WORDS, WORDS, min_size=1))
def test_a_table_is_the_same_after_writing_and_reading(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, str]
) -> None:
    path = tmp_path_factory.mktemp("tables") / "table"
    write_table(path, table)
    assert read_table(path) == table
    lines = path.read_bytes().splitlines()
    assert lines == sorted(lines, key=lambda line: line.split()[0])


@given(keys=st.lists(WORDS))
def test_keys_are_sorted_by_bytes(keys: list[str]) -> None:
    assert sorted_keys(keys) == sorted(keys, key=str.encode)


def test_values_keep_inner_spaces_and_tabs_separate_fields(tmp_path: Path) -> None:
    (tmp_path / "wav.scp").write_text("a \t sox a  b.wav -t wav - |  \nb\tb.wav\n")
    assert list(iter_table(tmp_path / "wav.scp")) == [(1, "a", "sox a  b.wav -t wav - |"), (2, "b", "b.wav")]


@pytest.mark.parametrize(
    ("content", "place", "fault"),
    [
        (b"", "", "the file is empty"),
        (b"a 1\n\nb 2\n", ":2", "expected a key and a value, found b''"),
        (b"a 1\nb\n", ":2", "expected a key and a value, found b'b'"),
        (b"a 1\na 2\n", ":2", "'a' appears twice"),
        (b"a-1 1\na-3 1\na-2 1\n", ":3", "'a-2' is not in LC_ALL=C order"),
        (b"a_1 1\nB_1 1\n", ":2", "'B_1' is not in LC_ALL=C order"),
        (b"a 1\nb 2", ":2", "the file was cut"),
        (b"a 1\nb \xff\n", ":2", "not UTF-8"),
    ],
)
def test_a_malformed_table_is_named_with_its_line(tmp_path: Path, content: bytes, place: str, fault: str) -> None:
    path = tmp_path / "utt2spk"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_table(path)
    assert str(caught.value).startswith(f"{path}{place}: ")
    assert fault in str(caught.value)


def test_an_unsorted_table_is_an_error_with_the_command_that_fixes_it(tmp_path: Path) -> None:
    (tmp_path / "utt2spk").write_text("b 1\na 1\n")
    with pytest.raises(InputError, match=f"run: tools/data_dir.sh fix {tmp_path}$"):
        read_table(tmp_path / "utt2spk")


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="utt2spk: no such file"):
        read_table(tmp_path / "utt2spk")


@pytest.mark.parametrize("table", [{"a b": "1"}, {"": "1"}, {"a": " "}, {"a": "1\n2"}])
def test_invalid_values_are_refused_and_the_old_table_is_kept(tmp_path: Path, table: dict[str, str]) -> None:
    path = tmp_path / "table"
    write_table(path, {"old": 1})
    with pytest.raises(InputError, match="cannot be written into a table"):
        write_table(path, {"A": "fine", **table})
    assert path.read_text() == "old 1\n"
    assert os.listdir(tmp_path) == ["table"]


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "table"
    write_lines(path, ["old\n"])

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_lines(path, ["new\n"])
    assert caught.value.filename == str(path)
    assert path.read_text() == "old\n"
    assert os.listdir(tmp_path) == ["table"]


def test_files_of_a_killed_writer_are_removed(tmp_path: Path) -> None:
    (tmp_path / ".table.123.tmp").write_text("half")
    (tmp_path / ".table2.123.tmp").write_text("of another file")
    write_lines(tmp_path / "table", ["new\n"])
    assert sorted(os.listdir(tmp_path)) == [".table2.123.tmp", "table"]


def test_speakers_and_their_utterances_are_in_byte_order() -> None:
    utt2spk = {"b-2": "b", "a-10": "a", "B-1": "B", "a-1": "a"}
    assert list(spk2utt_of(utt2spk).items()) == [("B", ["B-1"]), ("a", ["a-1", "a-10"]), ("b", ["b-2"])]
