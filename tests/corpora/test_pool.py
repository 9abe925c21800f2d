"""Pools: several corpora become one training set, and test sets with trials."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.corpora.lists import ListOptions
from wespeaker_lite.corpora.pool import make_pool_lists, read_pool
from wespeaker_lite.kaldi.tables import read_table
from wespeaker_lite.kaldi.trials import read_trials


def corpus(folder: Path, speakers: str, sessions: int = 1, utterances: int = 4, seconds: float = 0.5) -> None:
    for speaker in speakers:
        for session in range(sessions):
            place = folder / speaker / f"day{session}"
            place.mkdir(parents=True)
            for number in range(utterances):
                soundfile.write(place / f"u{number}.flac", np.zeros(int(seconds * 8000)), 8000)


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Two training corpora, one of them without sessions, and two test corpora, one of them with sessions."""
    corpus(tmp_path / "real/big", "abc")
    corpus(tmp_path / "real/big_test", "xyz", sessions=2, utterances=2)
    corpus(tmp_path / "pool/small", "ab", utterances=1)
    corpus(tmp_path / "pool/with_trials", "ab", utterances=1)
    (tmp_path / "pool/with_trials/trials").write_text("a/day0/u0.flac b/day0/u0.flac nontarget\n")
    (tmp_path / "pool/clips").mkdir()
    for name in ("1-7-0.flac", "1-8-0.flac", "2-1-0.flac"):
        soundfile.write(tmp_path / "pool/clips" / name, np.zeros(4000), 8000)
    for name in ("big", "big_test"):
        (tmp_path / "pool" / name).symlink_to(tmp_path / "real" / name)
    return tmp_path / "pool"


def config(pool: Path, text: str) -> Path:
    path = pool.parent / "pool.yaml"
    path.write_text(text)
    return path


def test_a_pool_becomes_sets_with_prefixes_and_a_list_for_each_test_set(pool: Path, tmp_path: Path) -> None:
    text = """
        train: {big: {}, small: , clips: {layout: clips}}
        test: {far: {folder: big_test, corpus: big}, with_trials: }"""
    before = sorted(pool.rglob("*"))
    make_pool_lists(pool, config(pool, text), tmp_path / "data", ListOptions())
    train = read_table(tmp_path / "data/train/utt2spk")
    assert Counter(train.values()) == {
        "big-a": 4, "big-b": 4, "big-c": 4, "small-a": 1, "small-b": 1, "clips-1": 1, "clips-2": 1
    }  # fmt: skip
    assert "big-a-day0-u0" in train
    far = read_trials(tmp_path / "data/trials/trials_O_far")
    pairs = list(zip(far.enroll, far.test, far.labels.tolist(), strict=True))
    assert sum(far.labels) == 3 * 4  # all pairs across sessions, and as many nontargets
    assert len(far) == 24
    assert all(one.split("-")[2] != other.split("-")[2] for one, other, label in pairs if label)
    assert all(name.startswith("big-") for pair in pairs for name in pair[:2])
    given = read_trials(tmp_path / "data/trials/trials_with_trials")
    assert (given.enroll, given.test) == (["with_trials-a-day0-u0"], ["with_trials-b-day0-u0"])
    assert (tmp_path / "data/test_sets").read_text() == "far trials_O_far\nwith_trials trials_with_trials\n"
    assert set(read_table(tmp_path / "data/test/utt2spk")) >= {*far.enroll, *given.test}
    assert sorted(pool.rglob("*")) == before


def test_utterances_per_speaker_are_limited_by_seed(pool: Path) -> None:
    def train(text: str, seed: int = 1) -> dict[str, str]:
        sets, _ = read_pool(pool, config(pool, f"train: {{{text}}}"), ListOptions(seed))
        return sets["train"].utt2spk

    drawn = train("big: {max_utterances: 2}")
    assert Counter(drawn.values()) == {"big-a": 2, "big-b": 2, "big-c": 2}
    assert drawn == train("big: {max_utterances: 2}")
    assert any(drawn != train("big: {max_utterances: 2}", seed) for seed in (2, 3, 4))
    assert set(Counter(train("big: {max_seconds: 1.6}").values()).values()) == {3}
    assert set(Counter(train("big: {max_seconds: 0.1}").values()).values()) == {1}  # no speaker is lost
    assert set(Counter(train("big: {max_seconds: 9, max_utterances: 1}").values()).values()) == {1}


def test_lists_of_removed_sets_are_removed(pool: Path, tmp_path: Path) -> None:
    options, data = ListOptions(), tmp_path / "data"
    make_pool_lists(pool, config(pool, "test: {big_test: {}, with_trials: {}}"), data, options)
    (data / "trials/trials_of_a_user").write_text("kept\n")
    make_pool_lists(pool, config(pool, "test: {big_test: {}}"), data, options)
    assert {path.name for path in (data / "trials").iterdir()} == {"trials_O_big_test", "trials_of_a_user"}
    with pytest.raises(InputError, match="data/test is of another pool"):
        make_pool_lists(pool, config(pool, "train: {big: {}}"), data, options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {big: {}}\ntest: {t: {folder: big, corpus: big}}", "'big-a' is in a training and in a test set"),
        ("train: {big: {}, again: {folder: big, corpus: big}}", "speaker 'big-a' is in both sets"),
        ("test: {with_trials: {max_utterances: 1}}", "cannot have given trials"),
        ("train: {big: {trials: [x]}}", "train.big: trials are of test sets"),
        ("train: {a-b: {folder: big}}", "'a-b' is part of ids"),
        ("train: {sp2: {folder: big}}", "'sp2' is part of ids"),
        ("train: {big: {max_utterance: 1}}", "unknown key 'max_utterance'; did you mean 'max_utterances'"),
        ("train: {big: {max_seconds: -1}}", "max_seconds: -1.0 does not lie in"),
        ("train: {nowhere: {}}", "nowhere: no such folder"),
        ("train: {nowhere: {layout: unlabelled}}", "nowhere: no such folder"),
        ("test: {big_test: {layout: unlabelled}}", "test.big_test: 'x_day0_u0' is unlabelled: trials need speakers"),
        ("test: {big_test: {trials: [none]}}", "none: no such file"),
        ("", "names no set"),
    ],
)
def test_a_bad_pool_is_refused(pool: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_pool(pool, config(pool, text), ListOptions())


def test_unlabelled_corpora_have_no_speakers(pool: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def train(text: str) -> dict[str, str]:
        make_pool_lists(pool, config(pool, f"train: {{small: {{}}, {text}}}"), tmp_path / "data", ListOptions())
        return read_table(tmp_path / "data/train/utt2spk")

    with caplog.at_level("INFO"):
        utt2spk = train("big: {layout: unlabelled}")
    unlabelled = read_table(tmp_path / "data/train/spk2unlabelled")
    assert len(unlabelled) == 12
    assert unlabelled["big-a_day0_u3"] == "yes"
    assert {name for name, speaker in utt2spk.items() if name == speaker} == unlabelled.keys()
    assert set(utt2spk.values()) - unlabelled.keys() == {"small-a", "small-b"}
    assert "train.big: 0 utterances of 0 speakers and 12 unlabelled ones" in caplog.text
    assert "data/train: 2 utterances of 2 speakers and 12 unlabelled ones" in caplog.text
    assert len(train("big: {layout: unlabelled, max_utterances: 5}")) == 2 + 5  # of all, not of a speaker
    assert len(train("big: {layout: unlabelled, max_seconds: 1.6}")) == 2 + 3
    train("big: {}")
    assert not (tmp_path / "data/train/spk2unlabelled").exists()
