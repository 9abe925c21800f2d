"""Trial lists and score files against simple, slow readers: the same trials, or an error."""

from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz.common import damaged, examples, outcome
from wespeaker_lite.kaldi.trials import Trials, match_ids, read_trials, write_trials
from wespeaker_lite.scoring.scores import read_scores

WORDS = [
    "a", "b", "1", "0", "target", "nontarget", "2", "1.5", "nan", "-inf", "1_0", "1e3", "1e999", "\u0661", "\u00a0",
    "\u2028", "\x1c", "\ufeff", "\xe9"
]  # fmt: skip
GAPS = ["", " ", " ", " ", "\t", "  ", "\n", "\n", "\r\n", "\r", "\v", "\0"]
KALDI = b"a-1 a-2 target\na-1 b-1 nontarget\n"
VOXCELEB = b"1 a-1 a-2\n0 a-1 b-1\n"
SCORES = b"a-1 a-2 0.512345 target\na-1 b-1 -3.5 nontarget\n"
LINES = st.lists(
    st.tuples(st.sampled_from(WORDS), st.sampled_from(WORDS), st.sampled_from(WORDS), st.sampled_from(WORDS)),
    max_size=3,
)


def content(*good: bytes) -> st.SearchStrategy[bytes]:
    return st.one_of(
        st.sampled_from(good).flatmap(damaged),
        st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(GAPS)), max_size=12).map(
            lambda pairs: "".join(word + gap for word, gap in pairs).encode()
        ),
        LINES.map(lambda rows: "".join(" ".join(row[:3]) + "\n" for row in rows).encode()),
        LINES.map(lambda rows: "".join(" ".join(row) + "\n" for row in rows).encode()),
        st.binary(max_size=30),
    )


def words_of(data: bytes, count: int) -> list[list[str]] | None:
    """The words of each line; None if a line has another number of words than `count`, or is not text."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    rows = [line.split() for line in (lines[:-1] if not lines[-1] else lines)]
    return rows if rows and all(len(row) == count for row in rows) else None


def trials_of(data: bytes) -> list[tuple[str, str, bool]] | None:
    rows = words_of(data, 3)
    if not rows:
        return None
    if rows[0][2] in ("target", "nontarget"):
        good = all(row[2] in ("target", "nontarget") for row in rows)
        return [(one, other, label == "target") for one, other, label in rows] if good else None
    good = all(row[0] in ("1", "0") for row in rows)
    return [(one, other, label == "1") for label, one, other in rows] if good else None


def rows_of(trials: Trials) -> list[tuple[str, str, bool]]:
    return list(zip(trials.enroll, trials.test, trials.labels.tolist(), strict=True))


@examples(150)
@given(data=content(KALDI, VOXCELEB))
@example(data=b"1 a\nb 1 c d\n")  # six words in two lines
@example(data=b"\na b target c d target\n")
def test_trials_are_read_as_by_a_simple_reader(folder: Path, data: bytes) -> None:
    path = folder / "trials"
    path.write_bytes(data)
    trials = outcome(lambda: read_trials(path))
    assert trials_of(data) == (None if trials is None else rows_of(trials))
    if trials:
        write_trials(folder / "again", trials)
        assert rows_of(read_trials(folder / "again")) == rows_of(trials)
        outcome(lambda: match_ids(trials, {"a-1", "a/2", "b"}))


@examples(150)
@given(data=content(SCORES))
@example(data=b"a b nan target\n")
@example(data=b"a b 1_0 target\n")
@example(data=b"\xff")
def test_scores_are_read_as_by_a_simple_reader(folder: Path, data: bytes) -> None:
    path = folder / "x.score"
    path.write_bytes(data)
    expected = words_of(data, 4)
    right = expected and all(row[3] in ("target", "nontarget") and _is_number(row[2]) for row in expected)
    found = outcome(lambda: read_scores(path))
    assert (found is not None) == bool(right)
    if found:
        trials, scores = found
        assert rows_of(trials) == [(row[0], row[1], row[3] == "target") for row in expected]
        assert scores.tolist() == [float(row[2]) for row in expected]


def _is_number(word: str) -> bool:
    mantissa, _, exponent = word.lower().partition("e")
    whole, _, fraction = mantissa.removeprefix("-").removeprefix("+").partition(".")
    digits = whole + fraction
    plain = digits.isascii() and digits.isdigit() and (not exponent or exponent.lstrip("+-").isdigit())
    return plain and word.lower()[-1] != "e" and abs(float(word)) < float("inf")
