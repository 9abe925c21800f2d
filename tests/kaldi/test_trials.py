"""Trial lists: both formats, matching of ids, and generated lists."""

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.kaldi.trials import (
    Trials,
    check_known,
    make_trials,
    match_ids,
    read_trials,
    write_trials,
)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def rows(trials: Trials) -> list[tuple[str, str, bool]]:
    return list(zip(trials.enroll, trials.test, trials.labels.tolist(), strict=True))


@pytest.mark.parametrize(
    "text",
    [
        "a-1 a-2 target\na-1 b-1 nontarget\na-1 a-2 target\n",
        "1 a-1 a-2\n0 a-1 b-1\n1 a-1 a-2\n",
        "1\ta-1  a-2\r\n0 a-1 b-1\r\n1 a-1 a-2",
    ],
    ids=["kaldi", "voxceleb", "tabs and no last newline"],
)
def test_both_forms_give_the_same_trials_and_keep_duplicates(tmp_path: Path, text: str) -> None:
    trials = read_trials(write(tmp_path / "trials", text))
    assert rows(trials) == [("a-1", "a-2", True), ("a-1", "b-1", False), ("a-1", "a-2", True)]
    assert trials.labels.dtype == bool


def test_an_utterance_named_1_is_not_a_label(tmp_path: Path) -> None:
    assert rows(read_trials(write(tmp_path / "t", "1 2 target\n"))) == [("1", "2", True)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a b target\na c imposter\n", "trials:2: .*'a c imposter'"),
        ("1 a b\n2 a c\n", "trials:2: .*'2 a c'"),
        ("a b yes\n", "trials:1: "),
        ("a b target\n\na c target\n", "trials:2: "),
        ("a b target\n1 a b\n", "trials:2: "),
        ("a b target more\n", "trials:1: "),
        ("", "empty"),
    ],
)
def test_any_other_line_is_an_error_with_file_and_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_trials(write(tmp_path / "trials", text))


def test_missing_and_binary_files_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_trials(tmp_path / "nowhere")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        read_trials(tmp_path / "binary")


def test_written_trials_are_read_back(tmp_path: Path) -> None:
    trials = Trials(["a-1", "b-1"], ["a-2", "a-1"], np.array([True, False]))
    write_trials(tmp_path / "new" / "trials_O", trials)
    assert (tmp_path / "new" / "trials_O").read_text() == "a-1 a-2 target\nb-1 a-1 nontarget\n"
    assert rows(read_trials(tmp_path / "new" / "trials_O")) == rows(trials)


VOXCELEB_FORMS = [
    "id10001/1zcIwhmdeo4/00001.wav",
    "id10001/1zcIwhmdeo4/00001",
    "id10001-1zcIwhmdeo4-00001",
    "id10001-1zcIwhmdeo4-00001.flac",
]


@pytest.mark.parametrize("key", VOXCELEB_FORMS)
def test_every_voxceleb_id_form_matches_every_other(key: str) -> None:
    trials = Trials(list(VOXCELEB_FORMS), list(VOXCELEB_FORMS), np.ones(4, dtype=bool))
    matched = match_ids(trials, {key, "id10002/-_7Tr/00001.wav"})
    assert matched.enroll == [key] * 4 == matched.test


def test_video_ids_may_contain_dashes() -> None:
    trials = Trials(["id10002/-_7-Tr/00001.wav"], ["id10002--_7-Tr-00002"], np.array([True]))
    matched = match_ids(trials, {"id10002--_7-Tr-00001", "id10002/-_7-Tr/00002"})
    assert (matched.enroll, matched.test) == (["id10002--_7-Tr-00001"], ["id10002/-_7-Tr/00002"])


def test_exact_ids_have_priority_over_aliases_and_aliases_over_similar_ids() -> None:
    trials = Trials(["a.wav", "x"], ["0011", "a/1"], np.ones(2, dtype=bool))
    matched = match_ids(
        trials, {"a.wav", "a", "01-0011", "a-1", "b-1"}, {"0011": "01-0011", "a/1": "b-1", "a.wav": "a"}
    )
    assert matched.enroll == ["a.wav", "x"]
    assert matched.test == ["01-0011", "b-1"]


def test_an_id_that_matches_two_keys_is_an_error() -> None:
    trials = Trials(["a/b/c.wav"], ["a-b-c"], np.array([True]), "trials_O")
    with pytest.raises(InputError, match=r"'a/b/c\.wav' can be 'a-b-c' or 'a/b-c'"):
        match_ids(trials, ["a-b-c", "a/b-c"])


def test_unknown_utterances_are_counted_and_the_first_named_by_line() -> None:
    trials = Trials(["a-1", "a-1", "z-9", "a-1"], ["a-2", "y-1", "y-1", "a-2"], np.ones(4, dtype=bool), "data/trials_O")
    with pytest.raises(InputError, match=r"data/trials_O:2: .*'y-1'.*2 unknown utterances in 2 of 4 trials"):
        check_known(trials, {"a-1", "a-2"})
    check_known(trials, ["a-1", "a-2", "y-1", "z-9"])


def corpus(speakers: int, sessions: int, utterances: int) -> tuple[dict[str, str], dict[str, str]]:
    ids = itertools.product(range(speakers), range(sessions), range(utterances))
    utt2spk = {f"spk{k:02d}-s{s}-{u}": f"spk{k:02d}" for k, s, u in ids}
    return utt2spk, {utterance: utterance.split("-")[1] for utterance in utt2spk}


def all_pairs(utt2spk: dict[str, str]) -> list[tuple[str, str]]:
    return list(itertools.combinations(sorted(utt2spk), 2))


def test_all_targets_and_as_many_nontargets_without_sessions() -> None:
    utt2spk, _ = corpus(5, 2, 3)
    trials = make_trials(utt2spk, seed=3)["trials_O"]
    targets = {(enroll, test) for enroll, test, label in rows(trials) if label}
    nontargets = [(enroll, test) for enroll, test, label in rows(trials) if not label]
    assert targets == {(a, b) for a, b in all_pairs(utt2spk) if utt2spk[a] == utt2spk[b]}
    assert len(nontargets) == len(set(nontargets)) == len(targets) == 5 * 15
    assert all(utt2spk[a] != utt2spk[b] and a < b for a, b in nontargets)


def test_targets_are_across_sessions_where_sessions_are_known() -> None:
    utt2spk, sessions = corpus(4, 3, 2)
    trials = make_trials(utt2spk, seed=3, session_of=sessions)["trials_O"]
    expected = {(a, b) for a, b in all_pairs(utt2spk) if utt2spk[a] == utt2spk[b] and sessions[a] != sessions[b]}
    assert {(a, b) for a, b, label in rows(trials) if label} == expected


def test_h_compares_the_same_sex_and_age_group_only() -> None:
    utt2spk, _ = corpus(16, 1, 4)
    speakers = sorted(set(utt2spk.values()))
    spk2gender = {speaker: "mf"[n % 2] for n, speaker in enumerate(speakers)}
    ages = [6, 6, 12, 12, 13, 13, 17, 17, 18, 18, 60, 60, 30, 30, 9, 9]
    spk2age = dict(zip(speakers, map(str, ages), strict=True))
    lists = make_trials(utt2spk, seed=1, spk2gender=spk2gender, spk2age=spk2age)
    assert set(lists) == {"trials_O", "trials_H"}
    group = {s: (spk2gender[s], (age >= 13) + (age >= 18)) for s, age in zip(speakers, ages, strict=True)}
    pairs = {(utt2spk[a], utt2spk[b]) for a, b, label in rows(lists["trials_H"]) if not label}
    possible = {(a, b) for a, b in itertools.combinations(speakers, 2) if group[a] == group[b]}
    assert pairs == possible  # 96 nontargets of 160 possible ones: every pair of speakers is met
    assert len({(utt2spk[a], utt2spk[b]) for a, b, label in rows(lists["trials_O"]) if not label}) > len(possible)
    assert [r for r in rows(lists["trials_H"]) if r[2]] == [r for r in rows(lists["trials_O"]) if r[2]]


def test_h_uses_sex_only_without_ages_and_is_not_made_without_sexes() -> None:
    utt2spk, _ = corpus(6, 1, 5)
    spk2gender = {f"spk{n:02d}": "mf"[n % 2] for n in range(6)}
    hard = make_trials(utt2spk, seed=1, spk2gender=spk2gender)["trials_H"]
    assert all(spk2gender[utt2spk[a]] == spk2gender[utt2spk[b]] for a, b, _ in rows(hard))
    assert set(make_trials(utt2spk, seed=1, spk2age=dict.fromkeys(spk2gender, "30"))) == {"trials_O"}


def test_the_result_depends_on_the_seed() -> None:
    utt2spk, _ = corpus(8, 1, 6)
    one, same, other = (rows(make_trials(utt2spk, seed)["trials_O"]) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_the_number_of_targets_can_be_limited() -> None:
    utt2spk, _ = corpus(8, 1, 6)
    trials = make_trials(utt2spk, seed=1, max_targets=50)["trials_O"]
    assert trials.labels.sum() == 50 == (~trials.labels).sum()
    assert len(set(rows(trials))) == 100


def test_few_nontargets_are_all_used_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    utt2spk = {f"a-{n}": "a" for n in range(6)} | {"b-1": "b"}
    trials = make_trials(utt2spk, seed=1)["trials_O"]
    assert sorted(row[:2] for row in rows(trials) if not row[2]) == [(f"a-{n}", "b-1") for n in range(6)]
    assert "only 6 nontargets for 15 targets" in caplog.text


def test_h_is_not_made_without_similar_speakers(caplog: pytest.LogCaptureFixture) -> None:
    utt2spk = {"a-1": "a", "a-2": "a", "b-1": "b"}
    assert set(make_trials(utt2spk, 1, spk2gender={"a": "m", "b": "f"})) == {"trials_O"}
    assert "trials_H: only 0 nontargets" in caplog.text


@pytest.mark.parametrize(
    ("utt2spk", "tables", "message"),
    [
        ({"a-1": "a", "b-1": "b"}, {}, "no target trial"),
        (
            {"a-1": "a", "a-2": "a", "b-1": "b"},
            {"session_of": {"a-1": "s", "a-2": "s", "b-1": "s"}},
            "no speaker has utterances of two sessions",
        ),
        ({"a-1": "a", "a-2": "a"}, {}, "no nontarget"),
        ({"a-1": "a", "a-2": "a", "b-1": "b"}, {"spk2gender": {"a": "m"}}, "spk2gender has no speaker 'b'"),
        (
            {"a-1": "a", "a-2": "a", "b-1": "b"},
            {"spk2gender": {"a": "m", "b": "m"}, "spk2age": {"a": "20", "b": "young"}},
            "'young' of speaker 'b'",
        ),
    ],
)
def test_lists_that_cannot_be_made_are_errors(utt2spk: dict[str, str], tables: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_trials(utt2spk, 1, **tables)


def test_nontargets_are_drawn_evenly() -> None:
    """Over 400 seeds, each of the 39 possible pairs of an unbalanced corpus is drawn about equally often."""
    utt2spk = {
        **{f"a-{n}": "a" for n in range(5)},
        **{f"b-{n}": "b" for n in range(3)},
        **{f"c-{n}": "c" for n in range(3)},
    }
    counts: Counter[tuple[str, str]] = Counter()
    for seed in range(400):
        trials = make_trials(utt2spk, seed, max_targets=5)["trials_O"]
        counts.update((a, b) for a, b, label in rows(trials) if not label)
    assert len(counts) == 5 * 6 + 9
    expected = 400 * 5 / 39
    assert max(abs(count - expected) for count in counts.values()) < 5 * np.sqrt(expected)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), min_size=2, max_size=25),
    st.integers(0, 10**6),
    st.one_of(st.none(), st.integers(1, 40)),
)
def test_lists_equal_a_simple_enumeration(drawn: list[tuple[int, int]], seed: int, cap: int | None) -> None:
    utt2spk = {f"s{speaker}-{n:02d}": f"s{speaker}" for n, (speaker, _) in enumerate(drawn)}
    session_of = {f"s{speaker}-{n:02d}": str(session) for n, (speaker, session) in enumerate(drawn)}
    possible = {True: set(), False: set()}
    for a, b in all_pairs(utt2spk):
        if utt2spk[a] != utt2spk[b] or session_of[a] != session_of[b]:
            possible[utt2spk[a] == utt2spk[b]].add((a, b))
    if not possible[True] or not possible[False]:
        with pytest.raises(InputError):
            make_trials(utt2spk, seed, session_of=session_of, max_targets=cap)
        return
    made = rows(make_trials(utt2spk, seed, session_of=session_of, max_targets=cap)["trials_O"])
    targets, nontargets = ([(a, b) for a, b, label in made if label == wanted] for wanted in (True, False))
    count = min(len(possible[True]), cap or len(possible[True]))
    assert len(targets) == count
    assert len(nontargets) == min(count, len(possible[False]))
    assert set(targets) <= possible[True]
    assert set(nontargets) <= possible[False]
    assert len(set(made)) == len(made)


def test_speechocean_lists_are_read_completely(shared_data: Path) -> None:
    for name in ("trials_O", "trials_H"):
        trials = read_trials(shared_data / "speechocean762" / name)
        assert len(trials) == 28500
        assert trials.labels.sum() == 14250


@pytest.mark.parametrize(
    "text",
    ["a b target\nc d target\na b nontarget\n", "a b target\nc d target\nb a nontarget\n", "1 a b\n0 c d\n0 b a\n"],
)
def test_a_pair_under_both_labels_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "trials").write_text(text)
    with pytest.raises(InputError, match="trials: lines 1 and 3 contradict each other on a and b"):
        read_trials(tmp_path / "trials")


@pytest.mark.parametrize(
    ("text", "duplicates", "of_itself"),
    [
        ("a b target\na c nontarget\n", 0, 0),
        ("a b target\nb a target\na c nontarget\na c nontarget\na b target\n", 3, 0),
        ("1 a a\n0 a c\n1 b b\n", 0, 2),
    ],
)
def test_duplicates_and_trials_of_an_utterance_with_itself_are_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, duplicates: int, of_itself: int
) -> None:
    trials = read_trials(write(tmp_path / "trials", text))
    assert (trials.duplicates, trials.of_itself) == (duplicates, of_itself)
    said = f"trials: {duplicates} duplicate trials, {of_itself} of an utterance with itself"
    assert (said in caplog.text) == (duplicates + of_itself > 0)


def test_a_nontarget_trial_of_an_utterance_with_itself_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"trials:2: 'c' compared with itself is labelled nontarget"):
        read_trials(write(tmp_path / "trials", "a b target\nc c nontarget\n"))
