"""Tables of data directories against a simple, slow reader: the same records, or an error."""

import re
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz.common import damaged, examples, outcome
from wespeaker_lite.corpora.corpus_set import CorpusSet, write_data_dir
from wespeaker_lite.corpora.kaldi_dirs import read_kaldi_dir
from wespeaker_lite.kaldi.block_table import decimals, read_block_table
from wespeaker_lite.kaldi.fix import fix
from wespeaker_lite.kaldi.segments import iter_segments
from wespeaker_lite.kaldi.split import split
from wespeaker_lite.kaldi.tables import iter_counts, iter_table, read_table, write_table
from wespeaker_lite.kaldi.validate import validate

PIECES = st.sampled_from(
    [b"a", b"b", b"a-1", b"a-2", b"b-1", b"B", b"1", b"0.5", b"1e3", b"nan", b"inf", b"-1", b"1_0", b" ", b" ", b"  ",
     b"\t", b"\n", b"\n", b"\r\n", b"\r", b"\v", b"\f", b"\x1c", b"\0", b"\x7f", b"\xff", "\u00e9".encode(),
     "\u00a0".encode(), "\u2028".encode(), "\u0661".encode(), b"|", b":"]
)  # fmt: skip
LINES = st.lists(st.tuples(st.sampled_from([b"a-1", b"a-2", b"b-1", b"c"]), PIECES, PIECES), max_size=5)
GOOD = b"a-1 x\na-2 y  z\nb-1\t1\n"
CONTENT = st.one_of(
    st.lists(PIECES, max_size=20).map(b"".join),
    LINES.map(lambda rows: b"".join(b"%s %s%s\n" % row for row in sorted(rows))),
    damaged(GOOD),
    st.binary(max_size=40),
)
_BLANK = rb"[ \t\r\v\f]"
_RECORD = re.compile(rb"%s*([^ \t\r\v\f]+)%s+(.*[^ \t\r\v\f])%s*" % (_BLANK, _BLANK, _BLANK), re.DOTALL)


def read_simply(content: bytes) -> list[tuple[str, str]] | None:
    """The records of a table, or None if it is invalid."""
    *lines, rest = content.split(b"\n")
    found = [_RECORD.fullmatch(line) for line in lines]
    if not lines or rest or not all(found) or b"\0" in content:
        return None
    keys = [match[1] for match in found]
    if sorted(set(keys)) != keys:
        return None
    try:
        return [(match[1].decode(), match[2].decode()) for match in found]
    except UnicodeDecodeError:
        return None


@examples(60)
@given(content=CONTENT)
@example(content=b"a\0 x\nb y\n")
@example(content="a\u2028b x\n".encode())
def test_a_table_is_read_as_by_a_simple_reader(folder: Path, content: bytes) -> None:
    path = folder / "table"
    path.write_bytes(content)
    expected = read_simply(content)
    rows = outcome(lambda: list(iter_table(path)))
    assert expected == (None if rows is None else [(key, value) for _, key, value in rows])
    block = outcome(lambda: read_block_table(path))
    assert (block is None) == (expected is None)
    if block is not None:
        assert [(key.decode(), block.value(n)) for n, key in enumerate(block.keys.tolist())] == expected
        assert [value.decode() for value in block.column().tolist()] == [value for _, value in expected]
        numbers = [int(value) if re.fullmatch("[0-9]{1,18}", value) else -1 for _, value in expected]
        assert decimals(block.column()).tolist() == numbers
        counts = [(key, number) for (key, _), number in zip(expected, numbers, strict=True)]
        assert outcome(lambda: list(iter_counts(path))) == (counts if min(numbers) > 0 else None)


@examples(40)
@given(table=st.dictionaries(st.text(max_size=6), st.text(max_size=6), max_size=4))
@example(table={"a\0": "x"})
@example(table={"a": "x\r"})
def test_what_is_written_is_read_back(folder: Path, table: dict[str, str]) -> None:
    path = folder / "written"
    path.unlink(missing_ok=True)
    outcome(lambda: write_table(path, table))
    if table and path.exists():
        kept = {key: value.strip(" \t\r\v\f") for key, value in table.items()}
        assert read_table(path) == kept


SECONDS = ["0", "0.5", "1", "1.25", ".5", "2.", "1e1", "-0.5", "nan", "inf", "1_0", "\u0661", "x", ""]


@examples(60)
@given(rows=st.lists(st.tuples(st.sampled_from(SECONDS), st.sampled_from(SECONDS)), min_size=1, max_size=3))
def test_segments_are_read_as_by_a_simple_reader(folder: Path, rows: list[tuple[str, str]]) -> None:
    path = folder / "segments"
    path.write_text("".join(f"u{n} r {start} {end}\n" for n, (start, end) in enumerate(rows)))
    right = {"0", "0.5", "1", "1.25", ".5", "2.", "1e1"}
    good = all(start in right and end in right and float(start) < float(end) for start, end in rows)
    found = outcome(lambda: list(iter_segments(path)))
    expected = [(f"u{n}", "r", float(start), float(end)) for n, (start, end) in enumerate(rows)] if good else None
    assert expected == (None if found is None else [tuple(segment)[1:] for segment in found])


TABLES = {
    "utt2spk": b"a-1 a\na-2 a\nb-1 b\n",
    "spk2utt": b"a a-1 a-2\nb b-1\n",
    "wav.scp": b"r1 x.wav\nr2 y.wav\n",
    "segments": b"a-1 r1 0 1.5\na-2 r1 1.5 2\nb-1 r2 0 1\n",
    "utt2num_frames": b"a-1 150\na-2 50\nb-1 100\n",
    "utt2dur": b"a-1 1.5\na-2 0.5\nb-1 1\n",
    "spk2gender": b"a f\nb m\n",
}


@examples(60)
@given(name=st.sampled_from(sorted(TABLES)), data=st.data())
def test_a_damaged_data_dir_is_refused_or_complete_and_fixed_or_unchanged(
    folder: Path, name: str, data: st.DataObject
) -> None:
    place = folder / "dir"
    place.mkdir(exist_ok=True)
    for table, content in TABLES.items():
        (place / table).write_bytes(content)
    content = data.draw(st.one_of(CONTENT, damaged(TABLES[name])))
    (place / name).write_bytes(content)
    counts = outcome(lambda: validate(place, feats=True, wav=True))
    assert counts is None  # there is no feats.scp
    counts = outcome(lambda: validate(place, feats=False))
    if counts is not None:
        speakers = dict(read_simply((place / "utt2spk").read_bytes()))
        assert counts == (len(speakers), len(set(speakers.values())))
        assert all(utterance.startswith(speaker) for utterance, speaker in speakers.items())
    before = {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()}
    if outcome(lambda: fix(place)) is None:
        assert {path.name: path.read_bytes() for path in place.iterdir() if path.is_file()} == before
    else:
        assert outcome(lambda: fix(place)) in (None, {})
        for part in "12":
            outcome(lambda part=part: split(place, int(part), place / "split", per_utt=True))


@examples(60)
@given(name=st.sampled_from(["utt2spk", "wav.scp", "segments", "spk2gender"]), data=st.data())
def test_a_damaged_corpus_becomes_a_data_dir_or_an_error(folder: Path, name: str, data: st.DataObject) -> None:
    place = folder / "corpus"
    place.mkdir(exist_ok=True)
    for audio in ("x.wav", "y.wav"):
        (place / audio).write_bytes(b"RIFF")
    for table in ("utt2spk", "wav.scp", "segments", "spk2gender"):
        (place / table).write_bytes(TABLES[table])
    (place / name).write_bytes(data.draw(st.one_of(CONTENT, damaged(TABLES[name]))))

    def convert() -> CorpusSet:
        part = read_kaldi_dir(place)
        write_data_dir(folder / "out", part)
        validate(folder / "out", feats=False)
        return part

    part = outcome(convert)
    if part is not None:
        lines = (place / "utt2spk").read_bytes().decode().split("\n")
        given_speakers = sorted(line.split(None, 1)[1].strip() for line in lines if line.strip(" \t\r\v\f"))
        assert sorted(part.utt2spk.values()) == given_speakers
        assert read_table(folder / "out/utt2spk") == part.utt2spk
