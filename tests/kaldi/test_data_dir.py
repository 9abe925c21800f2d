"""Data directories: validate, fix, split, subset and combine."""

import logging
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.files import write_lines
from wespeaker_lite.kaldi.combine import combine
from wespeaker_lite.kaldi.data_dir import unlabelled_speakers
from wespeaker_lite.kaldi.fix import fix
from wespeaker_lite.kaldi.split import shares_of, split
from wespeaker_lite.kaldi.subset import Selection, subset
from wespeaker_lite.kaldi.tables import read_table, spk2utt_of, write_table
from wespeaker_lite.kaldi.validate import validate

UTTERANCES = {
    f"{speaker}-{number}": speaker for speaker, count in (("A", 3), ("B", 1), ("C", 4)) for number in range(count)
}


def make(path: Path, utterances: dict[str, str] = UTTERANCES) -> Path:
    """Write a complete data directory: audio, features and durations."""
    (path / "feats.ark").parent.mkdir(parents=True, exist_ok=True)
    (path / "feats.ark").write_bytes(b"x")
    write_table(path / "utt2spk", utterances)
    spk2utt = {speaker: " ".join(keys) for speaker, keys in spk2utt_of(utterances).items()}
    write_table(path / "spk2utt", spk2utt)
    write_table(path / "spk2gender", dict.fromkeys(spk2utt, "f"))
    write_table(path / "wav.scp", {key: f"{key}.wav" for key in utterances})
    write_table(path / "feats.scp", {key: f"{path}/feats.ark:{number}" for number, key in enumerate(utterances)})
    write_table(path / "utt2num_frames", {key: 100 + number for number, key in enumerate(utterances)})
    write_table(path / "utt2dur", {key: f"{1 + number}.0" for number, key in enumerate(utterances)})
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make(tmp_path / "data")


def with_segments(path: Path) -> Path:
    """Make the utterances segments of two recordings. The second recording has two speakers."""
    recording = {"A": "r1", "B": "r2", "C": "r2"}
    times = {key: f"{recording[key[0]]} {number}.0 {number}.75" for number, key in enumerate(UTTERANCES)}
    write_table(path / "segments", times)
    write_table(path / "wav.scp", {"r1": "sox one.wav -t wav - |", "r2": "two.wav"})
    return path


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def tables(path: Path) -> dict[str, dict[str, str]]:
    return {file.name: read_table(file) for file in path.iterdir() if file.is_file() and file.suffix != ".ark"}


# validate


def test_a_good_directory_is_valid(source: Path) -> None:
    assert validate(source) == (8, 3)
    assert validate(with_segments(source)) == (8, 3)


def test_ids_with_slashes_and_ids_equal_to_the_speaker_are_valid(tmp_path: Path) -> None:
    utterances = {"id1/x/1": "id1", "id10/x/1": "id10", "id11": "id11"}
    assert validate(make(tmp_path / "data", utterances)) == (3, 3)


FIX = "run: tools/data_dir.sh fix"


@pytest.mark.parametrize(
    ("name", "old", "new", "place", "fault", "fix"),
    [
        ("utt2spk", "B-0 B\n", "B-0\n", ":4", "expected a key and a value", ""),
        ("wav.scp", "B-0 B", "B-1 B", ":4", "'B-1' has no speaker in utt2spk (1 such: B-1)", FIX),
        ("utt2spk", "B-0 B\n", "B-0 B b\n", ":4", "expected utterance and speaker", ""),
        ("utt2spk", "B-0 B\n", "B_0 B\n", ":4", "'B_0' does not start with its speaker 'B' and one of - /", "rename"),
        ("utt2spk", "A-1 A\n", "A-0 A\n", ":2", "'A-0' appears twice", FIX),
        ("utt2spk", "A-0 A\nA-1 A\n", "A-1 A\nA-0 A\n", ":2", "'A-0' is not in LC_ALL=C order", FIX),
        ("utt2spk", "C-3 C\n", "C-3 C", ":8", "the file was cut", ""),
        ("spk2utt", "C-3", "C-4", ":3", "speaker 'C' does not match utt2spk", FIX),
        ("spk2utt", "B B-0\n", "", ":2", "speaker 'C' does not match utt2spk", FIX),
        ("spk2utt", "C C-0 C-1 C-2 C-3\n", "", "", "speaker 'C' of utt2spk is missing", FIX),
        ("spk2gender", "C f\n", "D f\n", ":3", "speaker 'D' has no utterance in utt2spk", FIX),
        ("wav.scp", "C-0 C-0.wav\n", "", "", "1 of the 8 utterances of utt2spk are missing: C-0", FIX),
        ("utt2dur", "A-0 1.0\nA-1 2.0\nA-2 3.0\nB-0 4.0\n", "", "", "4 of the 8 utterances of utt2spk", FIX),
        ("utt2num_frames", "C-0 104", "C-0 0", ":5", "'C-0' has '0', expected a positive number of frames", ""),
        ("utt2num_frames", "C-0 104", "C-0 1e2", ":5", "expected a positive number of frames", ""),
        ("utt2dur", "A-1 2.0", "A-1 nan", ":2", "'A-1' has 'nan', expected positive seconds", ""),
        ("feats.scp", "feats.ark:5", "gone.ark:5", ":6", "gone.ark:5', expected an offset in an ark that exists", ""),
    ],
)  # fmt: skip
def test_a_fault_is_reported_with_its_line_and_its_fix(
    source: Path, name: str, old: str, new: str, place: str, fault: str, fix: str
) -> None:
    edit(source / name, old, new)
    with pytest.raises(InputError) as caught:
        validate(source)
    message = str(caught.value)
    assert message.startswith(f"{source}{place}: " if place.startswith("/") else f"{source}/{name}{place}: ")
    assert fault in message
    assert fix in message


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("A-1 r1 1.0", "A-1 r9 1.0", "segments:2: recording 'r9' is not in wav.scp"),
        ("A-1 r1 1.0 1.75", "A-1 r1 1.75 1.75", "segments:2: expected utterance, recording"),
        ("A-1 r1 1.0 1.75", "A-1 r1 1.0", "segments:2: expected utterance, recording"),
        ("A-1 r1 1.0 1.75", "A-1 r1 one two", "segments:2: expected utterance, recording"),
        ("A-1 r1 1.0 1.75\n", "", "segments: 1 of the 8 utterances of utt2spk are missing: A-1"),
    ],
)
def test_faults_of_segments_are_named_and_fixed(source: Path, old: str, new: str, fault: str) -> None:
    edit(with_segments(source) / "segments", old, new)
    with pytest.raises(InputError, match=fault) as caught:
        validate(source)
    assert FIX in str(caught.value)
    fix(source)
    assert validate(source) == (7, 3)


def test_speakers_whose_utterances_interleave_are_named(tmp_path: Path) -> None:
    source = make(tmp_path / "data", {"a-1": "a", "a-b-1": "a-b", "a-c": "a"})
    with pytest.raises(InputError, match=r"utt2spk:3: the utterances of 'a' are separated by those of 'a-b'"):
        validate(source)


@pytest.mark.parametrize("name", ["wav.scp", "feats.scp", "utt2num_frames", "utt2spk", "spk2utt"])
def test_a_missing_table_is_named(source: Path, name: str) -> None:
    (source / name).unlink()
    with pytest.raises(InputError, match=rf"{name}"):
        validate(source)


def test_early_stages_do_not_need_later_tables(source: Path) -> None:
    write_table(source / "feats.scp", {"stale": "x.ark:3"})
    (source / "utt2num_frames").unlink()
    (source / "utt2dur").unlink()
    assert validate(source, feats=False) == (8, 3)
    make(source)
    (source / "wav.scp").unlink()
    assert validate(source, wav=False) == (8, 3)


def test_only_the_first_missing_keys_are_named(source: Path) -> None:
    edit(source / "utt2dur", "A-0 1.0\nA-1 2.0\nA-2 3.0\nB-0 4.0\n", "")
    with pytest.raises(InputError, match=r"are missing: A-0, A-1, A-2, \.\.\.; make them"):
        validate(source)


# fix


def test_fix_sorts_drops_incomplete_utterances_and_keeps_the_old_files(source: Path) -> None:
    lines = (source / "wav.scp").read_text().splitlines(keepends=True)
    broken = "".join([*reversed(lines), lines[0], "\n"])
    (source / "wav.scp").write_text(broken)  # out of order, one line twice, a blank one
    edit(source / "utt2spk", "B-0 B\n", "B-0\n")  # its only utterance has no speaker
    edit(source / "feats.scp", "C-3 ", "C-4 ")
    changed = fix(source)
    assert validate(source) == (6, 2)
    assert list(read_table(source / "utt2spk")) == ["A-0", "A-1", "A-2", "C-0", "C-1", "C-2"]
    assert read_table(source / "spk2gender") == {"A": "f", "C": "f"}
    assert (source / ".backup" / "wav.scp").read_text() == broken
    assert changed["feats.scp"] == 3 - 1  # B-0 and C-4
    assert fix(source) == {}


def test_fix_keeps_recordings_in_use(source: Path) -> None:
    edit(with_segments(source) / "utt2spk", "A-0 A\nA-1 A\nA-2 A\n", "")
    fix(source)
    assert list(read_table(source / "wav.scp")) == ["r2"]
    assert validate(source) == (5, 2)


def test_fix_does_not_choose_between_values(source: Path) -> None:
    with open(source / "utt2spk", "a") as file:
        file.write("A-0 B\n")
    with pytest.raises(InputError, match=r"utt2spk:9: 'A-0' appears twice, with different values"):
        fix(source)


@pytest.mark.parametrize(
    ("file", "line", "fault"),
    [
        ("feats.scp", "other x.ark:3", "nothing was changed"),
        ("utt2spk", "A-0 A and more", "utt2spk: 'A-0' has speaker 'A and more': expected one word"),
    ],
)
def test_fix_changes_nothing_if_it_cannot_fix_all(source: Path, file: str, line: str, fault: str) -> None:
    (source / file).write_text(f"{line}\n")
    before = {file.name: file.read_bytes() for file in source.iterdir()}
    with pytest.raises(InputError, match=fault):
        fix(source)
    assert {file.name: file.read_bytes() for file in source.iterdir()} == before


# split


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=30), data=st.data())
def test_shares_are_ordered_complete_and_balanced(sizes: list[int], data: st.DataObject) -> None:
    parts = data.draw(st.integers(1, len(sizes)))
    shares = shares_of(sizes, parts)
    assert shares == sorted(shares)
    assert set(shares) == set(range(parts))
    totals = [sum(size for size, share in zip(sizes, shares, strict=True) if share == part) for part in range(parts)]
    assert max(totals) <= sum(sizes) / parts + 2 * max(sizes)


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_a_split_by_speaker_keeps_speakers_together_and_loses_nothing(source: Path, tmp_path: Path, parts: int) -> None:
    assert split(source, parts, tmp_path / "out") == parts
    found = [tmp_path / "out" / str(part) for part in range(1, parts + 1)]
    assert sum(validate(part)[1] for part in found) == 3
    for name, table in tables(source).items():
        joined = [row for part in found for row in read_table(part / name).items()]
        assert joined == list(table.items())


def test_a_split_by_utterance_is_even(source: Path, tmp_path: Path) -> None:
    split(source, 4, tmp_path / "out", per_utt=True)
    assert [validate(tmp_path / "out" / str(part))[0] for part in (1, 2, 3, 4)] == [2, 2, 2, 2]
    assert read_table(tmp_path / "out" / "2" / "spk2utt") == {"A": "A-2", "B": "B-0"}


def test_a_split_keeps_recordings_with_their_segments(source: Path, tmp_path: Path) -> None:
    split(with_segments(source), 3, tmp_path / "out")
    recordings = [list(read_table(tmp_path / "out" / part / "wav.scp")) for part in "123"]
    assert recordings == [["r1"], ["r2"], ["r2"]]


def test_an_incomplete_table_is_split_as_the_others(source: Path, tmp_path: Path) -> None:
    edit(source / "utt2dur", "A-1 2.0\nA-2 3.0\nB-0 4.0\n", "")
    split(source, 3, tmp_path / "out")
    durations = [tmp_path / "out" / part / "utt2dur" for part in "123"]
    assert [path.exists() and list(read_table(path)) for path in durations] == [
        ["A-0"],
        False,
        [f"C-{n}" for n in range(4)],
    ]


def test_fewer_speakers_than_parts_is_an_error_with_the_fix(source: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="3 speakers cannot be split into 4: take 1 to 3, or split with --per-utt"):
        split(source, 4, tmp_path / "out")
    with pytest.raises(InputError, match=r"8 utterances cannot be split into 9: take 1 to 8$"):
        split(source, 9, tmp_path / "out", per_utt=True)
    assert split(source, 9, tmp_path / "out", at_most=True) == 3


def test_a_second_split_leaves_no_table_of_the_first(source: Path, tmp_path: Path) -> None:
    split(source, 2, tmp_path / "out")
    (source / "feats.scp").unlink()
    split(source, 2, tmp_path / "out")
    assert not (tmp_path / "out" / "1" / "feats.scp").exists()


# subset and combine


def test_subsets_have_the_requested_utterances(source: Path, tmp_path: Path) -> None:
    write_lines(tmp_path / "speakers", ["C anything\n", "\n", "A\n"])
    write_lines(tmp_path / "utts", ["C-3\n", "A-1\n"])
    out = tmp_path / "out"

    def chosen(**selection: object) -> list[str]:
        count = subset(source, out, Selection(**selection))
        assert validate(out)[0] == count
        return list(read_table(out / "utt2spk"))

    assert chosen(utts=str(tmp_path / "utts")) == ["A-1", "C-3"]
    assert {key[0] for key in chosen(speakers=str(tmp_path / "speakers"))} == {"A", "C"}
    assert [key[0] for key in chosen(per_spk=2)] == ["A", "A", "B", "C", "C"]
    assert [key[0] for key in chosen(speakers=str(tmp_path / "speakers"), per_spk=1)] == ["A", "C"]
    assert len(chosen(num_utts=5)) == 5
    assert chosen(num_utts=5, seed=3) == chosen(num_utts=5, seed=3)
    assert len({tuple(chosen(num_utts=4, seed=seed)) for seed in range(5)}) > 1


def test_subsets_of_unknown_or_too_many_utterances_are_refused(source: Path, tmp_path: Path) -> None:
    write_lines(tmp_path / "utts", ["A-1\n", "D-1\n"])
    with pytest.raises(InputError, match=r"utts:2: 'D-1' is not in .*data \(1 such: D-1\)"):
        subset(source, tmp_path / "out", Selection(utts=str(tmp_path / "utts")))
    with pytest.raises(InputError, match="9 utterances were requested, there are 8"):
        subset(source, tmp_path / "out", Selection(num_utts=9))
    with pytest.raises(InputError, match="cannot be written over itself"):
        subset(source, source, Selection(num_utts=2))


def test_parts_of_a_split_combine_to_the_whole(source: Path, tmp_path: Path) -> None:
    split(with_segments(source), 4, tmp_path / "out", per_utt=True)
    parts = [tmp_path / "out" / str(part) for part in (3, 1, 4, 2)]
    assert combine(tmp_path / "joined", parts) == 8
    assert tables(tmp_path / "joined") == tables(source)


def test_copies_whose_ids_interleave_are_merged_in_order(tmp_path: Path) -> None:
    sources = [make(tmp_path / "a", {"A-1": "A", "C-1": "C"}), make(tmp_path / "b", {"A-2": "A", "B-1": "B"})]
    combine(tmp_path / "joined", sources)
    assert list(read_table(tmp_path / "joined" / "utt2spk")) == ["A-1", "A-2", "B-1", "C-1"]
    assert validate(tmp_path / "joined") == (4, 3)


def test_tables_that_cannot_be_combined_are_errors(source: Path, tmp_path: Path) -> None:
    shutil.copytree(source, tmp_path / "copy")
    with pytest.raises(InputError, match=r"utterance 'A-0' is in both .* and "):
        combine(tmp_path / "joined", [source, tmp_path / "copy"])
    other = make(tmp_path / "other", {"A-7": "A"})
    edit(other / "spk2gender", "f", "m")
    with pytest.raises(InputError, match=r"speaker 'A' has different values in "):
        combine(tmp_path / "joined", [source, other])
    with pytest.raises(InputError, match="some have segments and others do not"):
        combine(tmp_path / "joined", [with_segments(source), other])


def test_a_table_that_not_all_have_is_left_out_with_a_warning(
    source: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = make(tmp_path / "other", {"D-1": "D"})
    (other / "spk2gender").unlink()
    with caplog.at_level(logging.WARNING):
        combine(tmp_path / "joined", [source, other])
    assert "spk2gender: left out" in caplog.text
    assert not (tmp_path / "joined" / "spk2gender").exists()
    assert validate(tmp_path / "joined") == (9, 4)


def test_unlabelled_utterances_stay_so_in_parts_and_joined_sets(source: Path, tmp_path: Path) -> None:
    mixed = make(tmp_path / "mixed", {"A-9": "A", "D-1": "D-1", "E-1": "E-1"})
    write_table(mixed / "spk2unlabelled", {"D-1": "yes", "E-1": "yes"})
    assert combine(tmp_path / "joined", [source, mixed]) == 11
    assert unlabelled_speakers(tmp_path / "joined") == {"D-1", "E-1"}
    assert combine(tmp_path / "joined", [mixed, source]) == 11
    assert unlabelled_speakers(tmp_path / "joined") == {"D-1", "E-1"}
    validate(tmp_path / "joined")
    split(tmp_path / "joined", 11, tmp_path / "parts", per_utt=True)
    parts = [tmp_path / "parts" / str(part) for part in range(1, 12)]
    assert sorted(name for part in parts for name in unlabelled_speakers(part)) == ["D-1", "E-1"]
    (tmp_path / "list").write_text("A-9\nE-1\n")
    subset(tmp_path / "joined", tmp_path / "few", Selection(utts=str(tmp_path / "list")))
    assert unlabelled_speakers(tmp_path / "few") == {"E-1"}
    edit(mixed / "utt2spk", "D-1 D-1\n", "")
    fix(mixed)
    assert unlabelled_speakers(mixed) == {"E-1"}
    combine(tmp_path / "joined", [source])
    assert unlabelled_speakers(tmp_path / "joined") == set()


# the program


def run(repository: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wespeaker_lite.bin.data_dir", *map(str, words)]
    return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)


def test_the_program_fixes_the_faults_that_it_reports(repository: Path, source: Path, tmp_path: Path) -> None:
    edit(source / "utt2spk", "A-0 A\nA-1 A\n", "A-1 A\nA-0 A\n")
    done = run(repository, "validate", source)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1  # one clear line
    assert run(repository, *done.stderr.strip().rpartition("data_dir.sh ")[2].split()).returncode == 0
    assert run(repository, "validate", source).stdout == f"{source}: valid, 8 utterances of 3 speakers\n"
    assert run(repository, "split", source, 9, tmp_path / "out", "--per-utt", "--at-most").stdout.startswith("8 parts")
    assert run(repository, "combine", tmp_path / "all", tmp_path / "out/1", tmp_path / "out/8").stdout[0] == "2"
    assert run(repository, "subset", source, tmp_path / "few", "--per-spk", "1").stdout[0] == "3"
