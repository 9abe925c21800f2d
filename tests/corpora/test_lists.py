"""Trees and data dirs of users turned into data dirs and trial lists."""

import os
from pathlib import Path

import pytest

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.corpora.clips import Clips, read_clips
from wespeaker_lite.corpora.corpus_set import CorpusSet
from wespeaker_lite.corpora.lists import (
    ListOptions,
    check_corpus,
    make_lists,
    read_corpus,
    read_set,
)
from wespeaker_lite.kaldi.tables import read_table
from wespeaker_lite.kaldi.trials import read_trials
from wespeaker_lite.kaldi.validate import validate


def audio(path: Path, content: bytes = b"audio") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def text(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def tree(folder: Path, speakers: int = 8, sessions: int = 2, utterances: int = 2) -> Path:
    for speaker in range(speakers):
        for session in range(sessions):
            for utterance in range(utterances):
                audio(folder / f"spk{speaker}" / f"s{session}" / f"u{utterance}.flac")
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


# --- Trees ---


def test_a_tree_with_and_without_sessions_and_all_file_types(tmp_path: Path) -> None:
    for name in ("anna/a.wav", "anna/b.FLAC", "bert/day1/a.ogg", "bert/day1/b.opus", "bert/day2/a.mp3"):
        audio(tmp_path / name)
    audio(tmp_path / "anna/notes.txt")
    audio(tmp_path / "anna/.hidden.wav")
    audio(tmp_path / ".git/x/y.wav")
    part = read_set(tmp_path)
    assert part.wavs == {
        "anna-a": str(tmp_path / "anna/a.wav"),
        "anna-b": str(tmp_path / "anna/b.FLAC"),
        "bert-day1-a": str(tmp_path / "bert/day1/a.ogg"),
        "bert-day1-b": str(tmp_path / "bert/day1/b.opus"),
        "bert-day2-a": str(tmp_path / "bert/day2/a.mp3"),
    }
    assert part.utt2spk == {utterance: utterance.split("-")[0] for utterance in part.wavs}
    assert part.sessions["bert-day1-a"] == part.sessions["bert-day1-b"] != part.sessions["bert-day2-a"]


def test_links_are_followed_and_paths_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    audio(tmp_path / "elsewhere/anna/a.wav")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "anna").symlink_to(tmp_path / "elsewhere" / "anna")
    monkeypatch.chdir(tmp_path)
    assert read_set(Path("corpus")).wavs == {"anna-a": str(tmp_path / "corpus/anna/a.wav")}


def test_unusual_names_get_safe_ids_that_sort_by_speaker(tmp_path: Path) -> None:
    for name in ("anna b/my take 1.wav", "anna/z.wav", "anna-2/a.wav", "anna+3/a.wav", "Ümit/ä.wav"):
        audio(tmp_path / name)
    part = read_set(tmp_path)
    assert set(part.wavs) == {"anna_b-my_take_1", "anna-z", "anna_2-a", "anna_3-a", "Ümit-ä"}
    assert part.wavs["anna_b-my_take_1"].endswith("/anna b/my take 1.wav")
    by_utterance = [part.utt2spk[utterance] for utterance in sorted(part.utt2spk, key=str.encode)]
    assert by_utterance == sorted(by_utterance, key=str.encode)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["anna/a.wav", "anna/a.flac"], r"a\.flac and .*a\.wav both get the id 'anna-a'"),
        (["anna/a b.wav", "anna/a_b.wav"], "both get the id 'anna-a_b'"),
        (["anna/x/y.wav", "anna/x-y.wav"], "both get the id 'anna-x-y'"),
        (["anna-1/a.wav", "anna_1/b.wav"], "'anna-1' and 'anna_1' both get the id 'anna_1'"),
        (["top.wav", "anna/a.wav"], r"top\.wav: expected .*/speaker/\[session/\]top\.wav"),
        (["wav/anna/day1/a.wav"], r"a\.wav: deeper than"),
        (["anna/a.m4a"], r"a\.m4a: \.m4a cannot be read; convert it"),
        (["anna/readme.txt"], "no speaker/"),
        (["anna/tab\there.wav"], r"tab\\there.*rename it"),
        (["anna\n/a.wav"], r"anna\\n.*rename it"),
    ],
)
def test_trees_that_cannot_be_read_are_errors(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        audio(tmp_path / name)
    with pytest.raises(InputError, match=message):
        read_set(tmp_path)


def test_a_name_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    audio(tmp_path / "anna" / os.fsdecode(b"\xff.wav"))
    with pytest.raises(InputError, match=r"xff\.wav.*rename it"):
        read_set(tmp_path)


def test_empty_files_are_named_and_counted(tmp_path: Path) -> None:
    tree(tmp_path, speakers=2)
    audio(tmp_path / "spk0/s1/u0.flac", b"")
    audio(tmp_path / "spk1/s1/u0.flac", b"")
    with pytest.raises(InputError, match=r"spk0/s1/u0\.flac: 0 bytes \(2 of 8 audio files are empty\)"):
        read_set(tmp_path)


def test_a_tree_can_have_sex_and_age(tmp_path: Path) -> None:
    tree(tmp_path, speakers=2)
    audio(tmp_path / "eve-1/a.wav")
    text(tmp_path / "spk2gender", "spk0 f", "spk1 m", "eve-1 f", "stranger m")
    text(tmp_path / "spk2age", "spk1 30")
    part = read_set(tmp_path)
    assert part.spk2gender == {"spk0": "f", "spk1": "m", "eve_1": "f"}
    assert part.spk2age == {"spk1": "30"}


# --- Kaldi data dirs ---


def kaldi_dir(folder: Path) -> Path:
    audio(folder / "clips/x.wav")
    text(folder / "wav.scp", "b-1 sox in.sph -t wav - |", "a-2\tclips/x.wav")
    text(folder / "utt2spk", "a-2 a", "b-1 b")
    return folder


def test_data_dir_in_any_order_with_tabs_pipes_and_relative_paths(tmp_path: Path) -> None:
    part = read_set(kaldi_dir(tmp_path))
    assert part == CorpusSet(
        wavs={"a-2": str(tmp_path / "clips/x.wav"), "b-1": "sox in.sph -t wav - |"}, utt2spk={"a-2": "a", "b-1": "b"}
    )


def test_a_relative_path_may_be_of_the_folder_above_or_the_current_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio(tmp_path / "corpus/WAVE/1.wav")
    audio(tmp_path / "here/local.wav")
    text(tmp_path / "corpus/test/wav.scp", "s-1 WAVE/1.wav", "s-2 local.wav")
    text(tmp_path / "corpus/test/utt2spk", "s-1 s", "s-2 s")
    monkeypatch.chdir(tmp_path / "here")
    expected = {"s-1": str(tmp_path / "corpus/WAVE/1.wav"), "s-2": str(tmp_path / "here/local.wav")}
    assert read_set(tmp_path / "corpus/test").wavs == expected


def test_ids_get_their_speaker_as_prefix(tmp_path: Path) -> None:
    audio(tmp_path / "a.wav")
    ids = {"000010011": "0001", "0001-x": "0001", "0001/y": "0001", "0001_z": "0001", "0001": "0001"}
    text(tmp_path / "wav.scp", *(f"{utterance} a.wav" for utterance in ids))
    text(tmp_path / "utt2spk", *(f"{utterance} {speaker}" for utterance, speaker in ids.items()))
    part = read_set(tmp_path)
    assert set(part.wavs) == {"0001-000010011", "0001-x", "0001/y", "0001-0001_z", "0001-0001"} == set(part.utt2spk)
    assert part.aliases == {"000010011": "0001-000010011", "0001_z": "0001-0001_z", "0001": "0001-0001"}


def test_segments_keep_their_recordings(tmp_path: Path) -> None:
    audio(tmp_path / "tape.wav")
    audio(tmp_path / "unused.wav")
    text(tmp_path / "wav.scp", "tape1 tape.wav", "tape2 cat tape.wav |", "tape3 unused.wav")
    text(tmp_path / "segments", "a-1 tape1 0.5 2.0", "b9 tape1 2.0 4.0", "b-2 tape2 0 1.5")
    text(tmp_path / "utt2spk", "a-1 a", "b9 b", "b-2 b")
    part = read_set(tmp_path)
    assert part.wavs == {"tape1": str(tmp_path / "tape.wav"), "tape2": "cat tape.wav |"}
    assert part.segments == {"a-1": "tape1 0.5 2.0", "b-b9": "tape1 2.0 4.0", "b-2": "tape2 0 1.5"}
    only_a = part.of_speakers({"a"})
    assert only_a.wavs == {"tape1": str(tmp_path / "tape.wav")}
    assert only_a.segments == {"a-1": "tape1 0.5 2.0"}


@pytest.mark.parametrize(
    ("file", "lines", "message"),
    [
        ("wav.scp", ["a-2 clips/x.wav", "b-1"], "wav.scp:2: expected a key and a value, found 'b-1'"),
        ("wav.scp", ["a-2 clips/x.wav", "a-2 clips/x.wav"], "wav.scp:2: 'a-2' appears twice"),
        ("wav.scp", ["a-2 clips/x.wav"], r"wav.scp lacks 'b-1' \(1 utterances\)"),
        ("wav.scp", ["a-2 clips/nowhere.wav", "b-1 clips/x.wav"], "clips/nowhere.wav: no such file"),
        ("wav.scp", [], "wav.scp: the file is empty"),
        ("wav.scp", ["a-2 clips/x.wav", "", "b-1 x |"], "wav.scp:2: expected a key and a value, found ''"),
        ("utt2spk", ["a-2 a", "b-1 b\0"], "utt2spk:2: a zero byte"),
        ("utt2spk", ["a-2 a"], "utt2spk lacks 'b-1'"),
        ("utt2spk", ["a-2 a", "b-1 b", "c-1 c"], "wav.scp lacks 'c-1'"),
        ("segments", ["a-2 tape 0 1", "b-1 b-1 0 1"], "'a-2' is of recording 'tape', which is not in wav.scp"),
        ("segments", ["a-2 a-2 0 1"], "segments lacks 'b-1'"),
        ("segments", ["a-2 a-2 0 1", "b-1 b-1"], "segments: 'b-1' has no recording, start and end in seconds"),
        ("segments", ["a-2 a-2 0 1", "b-1 b-1 0 1_0"], "segments: 'b-1' has no recording"),
        ("utt2spk", None, "utt2spk: no such file"),
    ],
)
def test_broken_data_dirs_are_errors(tmp_path: Path, file: str, lines: list[str] | None, message: str) -> None:
    kaldi_dir(tmp_path)
    text(tmp_path / file, *(lines or []))
    if lines is None:
        (tmp_path / file).unlink()
    with pytest.raises(InputError, match=message):
        read_set(tmp_path)


def test_ids_that_collide_after_adding_the_speaker_are_an_error(tmp_path: Path) -> None:
    audio(tmp_path / "a.wav")
    text(tmp_path / "wav.scp", "a-1 a.wav", "1 a.wav")
    text(tmp_path / "utt2spk", "a-1 a", "1 a")
    with pytest.raises(InputError, match="no longer unique"):
        read_set(tmp_path)


def test_empty_audio_of_a_data_dir_is_an_error(tmp_path: Path) -> None:
    kaldi_dir(tmp_path)
    audio(tmp_path / "clips/x.wav", b"")
    with pytest.raises(InputError, match=r"x\.wav: 0 bytes"):
        read_set(tmp_path)


# --- Corpora ---


def test_speakers_are_split_by_seed(tmp_path: Path) -> None:
    tree(tmp_path, speakers=12)
    sets, lists = read_corpus(tmp_path, ListOptions())
    speakers = {name: set(part.utt2spk.values()) for name, part in sets.items()}
    assert lists == []
    assert (len(speakers["train"]), len(speakers["test"])) == (9, 3)
    assert not speakers["train"] & speakers["test"]
    again, _ = read_corpus(tmp_path, ListOptions())
    other, _ = read_corpus(tmp_path, ListOptions(seed=2, test_share=0.5))
    assert again == sets
    assert len(set(other["test"].utt2spk.values())) == 6


def test_too_few_speakers_to_split_is_an_error(tmp_path: Path) -> None:
    tree(tmp_path, speakers=3)
    with pytest.raises(InputError, match="3 speakers are too few to split"):
        read_corpus(tmp_path, ListOptions())


def test_speakers_of_the_trials_are_the_test_set(tmp_path: Path) -> None:
    tree(tmp_path, speakers=6)
    text(tmp_path / "trials_mine", "1 spk4/s0/u0.wav spk4/s1/u0.wav", "0 spk4-s0-u0 spk1-s0-u1")
    sets, lists = read_corpus(tmp_path, ListOptions())
    assert set(sets["test"].utt2spk.values()) == {"spk1", "spk4"}
    assert set(sets["train"].utt2spk.values()) == {"spk0", "spk2", "spk3", "spk5"}
    assert lists[0].test == ["spk4-s1-u0", "spk1-s0-u1"]


def test_trials_that_name_every_speaker_leave_no_training_set(tmp_path: Path) -> None:
    tree(tmp_path, speakers=3)
    text(tmp_path / "trials", "1 spk0-s0-u0 spk0-s1-u0", "0 spk1-s0-u0 spk2-s0-u1")
    sets, _ = read_corpus(tmp_path, ListOptions())
    assert list(sets) == ["test"]
    assert set(sets["test"].utt2spk.values()) == {"spk0", "spk1", "spk2"}


def test_a_train_and_a_test_folder_of_any_kind_are_the_sets(tmp_path: Path) -> None:
    tree(tmp_path / "train", speakers=3)
    kaldi_dir(tmp_path / "test")
    text(tmp_path / "test" / "trials", "a-2 b-1 nontarget")
    sets, lists = read_corpus(tmp_path, ListOptions())
    assert set(sets["train"].utt2spk.values()) == {"spk0", "spk1", "spk2"}
    assert set(sets["test"].utt2spk) == {"a-2", "b-1"}
    assert [len(trials) for trials in lists] == [1]


def test_trials_of_unknown_utterances_name_file_and_line(tmp_path: Path) -> None:
    tree(tmp_path / "test")
    text(tmp_path / "trials_O", "spk0-s0-u0 spk1-s0-u0 nontarget", "spk0-s0-u0 spk9-s0-u0 nontarget")
    with pytest.raises(InputError, match=r"trials_O:2: utterance 'spk9-s0-u0'"):
        read_corpus(tmp_path, ListOptions())


def test_trials_without_a_test_set_are_an_error(tmp_path: Path) -> None:
    tree(tmp_path / "train")
    text(tmp_path / "trials_O", "spk0-s0-u0 spk1-s0-u0 nontarget")
    with pytest.raises(InputError, match=r"there is no .*/test"):
        read_corpus(tmp_path, ListOptions())


def test_checking_writes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tree(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with caplog.at_level("INFO"):
        check_corpus(tmp_path, ListOptions())
    assert sorted(tmp_path.rglob("*")) == before
    assert "test has 8 utterances of 2 speakers" in caplog.text


# --- Clips of further training speakers ---


def test_the_first_clip_by_name_of_each_speaker_is_used_at_any_depth(tmp_path: Path) -> None:
    for name in (
        "40/222/40-222-0000.flac",
        "40/121026/40-121026-0001.flac",
        "more/40-121026-0000.flac",
        "7-1.ogg",
    ):
        audio(tmp_path / name)
    audio(tmp_path / "40/222/40-222.trans.txt")
    part = read_clips(Clips(str(tmp_path), prefix="ls", speakers=2))
    first = str(tmp_path / "more/40-121026-0000.flac")
    assert part.wavs == {"ls40-121026-0000": first, "ls7-1": str(tmp_path / "7-1.ogg")}
    assert part.utt2spk == {"ls40-121026-0000": "ls40", "ls7-1": "ls7"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], r"clips of 0 speakers, expected 2; is the folder whole\?"),
        (["1-2.flac", "1-3.flac"], "clips of 1 speakers, expected 2"),
        (["1-2.flac", "speech.flac"], r"speech\.flac: expected a name such as SPEAKER-CHAPTER-UTTERANCE\.flac"),
        (["1-2.flac", "2-my take.flac"], "my take.flac: expected a name"),
        (["1-2.flac", "2-1.m4a"], r"2-1\.m4a: \.m4a cannot be read"),
    ],
)
def test_unusable_clips_are_errors(tmp_path: Path, names: list[str], message: str) -> None:
    for name in names:
        audio(tmp_path / name)
    with pytest.raises(InputError, match=message):
        read_clips(Clips(str(tmp_path), speakers=2))


def test_no_folder_of_clips_and_an_empty_clip_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere: no such folder"):
        read_clips(Clips(str(tmp_path / "nowhere")))
    audio(tmp_path / "1-2.flac", b"")
    with pytest.raises(InputError, match=r"1-2\.flac: 0 bytes"):
        read_clips(Clips(str(tmp_path)))


def test_clips_are_added_to_train_and_do_not_change_test_and_trials(tmp_path: Path) -> None:
    corpus = tree(tmp_path / "corpus")
    text(corpus / "spk2gender", *(f"spk{n} {'mf'[n % 2]}" for n in range(8)))
    audio(tmp_path / "clips/9-1.flac")
    make_lists(corpus, tmp_path / "plain", ListOptions())
    make_lists(corpus, tmp_path / "joined", ListOptions(clips=Clips(str(tmp_path / "clips"), prefix="x")))
    plain, joined = contents(tmp_path / "plain"), contents(tmp_path / "joined")
    assert {name for name in plain if plain[name] != joined.get(name)} == {
        f"train/{name}" for name in ("wav.scp", "utt2spk", "spk2utt", "spk2gender")
    }
    assert "train/spk2gender" not in joined  # it would lack x9
    assert joined["train/utt2spk"] == plain["train/utt2spk"] + "x9-1 x9\n"


def test_clips_alone_are_the_training_set_of_a_corpus_without_one(tmp_path: Path) -> None:
    tree(tmp_path / "corpus/test")
    audio(tmp_path / "clips/9-1.flac")
    sets, _ = read_corpus(tmp_path / "corpus", ListOptions(clips=Clips(str(tmp_path / "clips"))))
    assert sets["train"].utt2spk == {"9-1": "9"}


def test_clips_of_known_speakers_and_clips_with_segments_are_errors(tmp_path: Path) -> None:
    tree(tmp_path / "corpus/train", speakers=2)
    tree(tmp_path / "corpus/test", speakers=2)
    audio(tmp_path / "clips/spk1-1.flac")
    options = ListOptions(clips=Clips(str(tmp_path / "clips")))
    with pytest.raises(InputError, match=r"speaker 'spk1' is in both sets \(1 such\); give one a prefix"):
        read_corpus(tmp_path / "corpus", options)
    kaldi_dir(tmp_path / "corpus/train")
    text(tmp_path / "corpus/train/segments", "a-2 a-2 0 1", "b-1 b-1 0 1")
    with pytest.raises(InputError, match="segments cannot be joined"):
        read_corpus(tmp_path / "corpus", options)


# --- Lists ---


def test_lists_of_a_tree(tmp_path: Path) -> None:
    tree(tmp_path / "corpus")
    text(tmp_path / "corpus/spk2gender", *(f"spk{n} {'mf'[n % 2]}" for n in range(8)))
    make_lists(tmp_path / "corpus", tmp_path / "data", ListOptions(test_share=0.5))
    for name in ("train", "test"):
        folder = tmp_path / "data" / name
        assert sorted(path.name for path in folder.iterdir()) == ["spk2gender", "spk2utt", "utt2spk", "wav.scp"]
        utt2spk, spk2utt = read_table(folder / "utt2spk"), read_table(folder / "spk2utt")
        assert list(read_table(folder / "wav.scp")) == list(utt2spk)
        assert {u: s for s, utterances in spk2utt.items() for u in utterances.split()} == utt2spk
        assert set(read_table(folder / "spk2gender")) == set(spk2utt)
        assert len(spk2utt) == 4
    spk2gender = read_table(tmp_path / "data/test/spk2gender")
    for name in ("trials_O", "trials_H"):
        trials = read_trials(tmp_path / "data/trials" / name)
        assert trials.labels.sum() == 4 * 4 == (~trials.labels).sum()
        pairs = list(zip(trials.enroll, trials.test, trials.labels, strict=True))
        assert all(a.split("-")[1] != b.split("-")[1] for a, b, label in pairs if label)
    assert all(spk2gender[a.split("-")[0]] == spk2gender[b.split("-")[0]] for a, b, _ in pairs)


def test_lists_are_reproducible_and_depend_on_the_seed(tmp_path: Path) -> None:
    tree(tmp_path / "corpus")
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        make_lists(tmp_path / "corpus", tmp_path / name, ListOptions(seed=seed))
    assert contents(tmp_path / "one") == contents(tmp_path / "same") != contents(tmp_path / "other")


def test_lists_of_the_corpus_replace_generated_lists(tmp_path: Path) -> None:
    corpus, data = tree(tmp_path / "corpus"), tmp_path / "data"
    text(corpus / "spk2gender", *(f"spk{n} m" for n in range(8)))
    make_lists(corpus, data, ListOptions())
    text(data / "trials/kept_by_user", "a b target")
    (corpus / "spk2gender").unlink()
    text(corpus / "trials_O", "0 spk0/s0/u0 spk1/s0/u0", "1 spk0/s0/u0 spk0/s1/u1")
    make_lists(corpus, data, ListOptions())
    assert {name for name in contents(data) if "trials/" in name} == {"trials/kept_by_user", "trials/trials_O"}
    expected = "spk0-s0-u0 spk1-s0-u0 nontarget\nspk0-s0-u0 spk0-s1-u1 target\n"
    assert (data / "trials/trials_O").read_text() == expected
    assert not (data / "train/spk2gender").exists()


def test_only_test_gives_only_test(tmp_path: Path) -> None:
    tree(tmp_path / "corpus/test")
    make_lists(tmp_path / "corpus", tmp_path / "data", ListOptions())
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["test", "trials"]
    assert read_trials(tmp_path / "data/trials/trials_O").labels.sum() == 8 * 4


def test_a_set_of_another_corpus_is_removed(tmp_path: Path) -> None:
    tree(tmp_path / "corpus")
    make_lists(tmp_path / "corpus", tmp_path / "data", ListOptions())
    tree(tmp_path / "other/test")
    with pytest.raises(InputError, match=r"data/train is of another corpus"):
        make_lists(tmp_path / "other", tmp_path / "data", ListOptions())


def test_single_sessions_give_targets_within_them_and_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tree(tmp_path / "corpus/test", speakers=3, sessions=1, utterances=3)
    make_lists(tmp_path / "corpus", tmp_path / "data", ListOptions())
    assert read_trials(tmp_path / "data/trials/trials_O").labels.sum() == 3 * 3
    assert "targets are within a session" in caplog.text


def test_an_option_limits_the_targets(tmp_path: Path) -> None:
    tree(tmp_path / "corpus/test")
    make_lists(tmp_path / "corpus", tmp_path / "data", ListOptions(max_targets=5))
    assert read_trials(tmp_path / "data/trials/trials_O").labels.sum() == 5


def test_speakers_in_both_sets_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tree(tmp_path / "corpus/test", speakers=3)
    tree(tmp_path / "corpus/train", speakers=2)
    make_lists(tmp_path / "corpus", tmp_path / "data", ListOptions())
    assert "2 speakers are in train and in test, such as 'spk0'" in caplog.text


# --- Real speech ---


def test_speechocean762_lists(shared_data: Path, tmp_path: Path) -> None:
    corpus = shared_data / "speechocean762"
    make_lists(corpus, tmp_path, ListOptions())
    for name, utterances, speakers in (("train", 2500, 125), ("test", 1500, 75)):
        wavs, utt2spk = (read_table(tmp_path / name / file) for file in ("wav.scp", "utt2spk"))
        assert len(wavs) == utterances
        assert len(set(utt2spk.values())) == speakers
        assert all(utterance.startswith(f"{speaker}-") for utterance, speaker in utt2spk.items())
        assert set(read_table(tmp_path / name / "spk2age")) == set(utt2spk.values())
        assert os.path.isabs(next(iter(wavs.values())))
    for name in ("trials_O", "trials_H"):
        given, written = read_trials(corpus / name), read_trials(tmp_path / "trials" / name)
        assert len(written) == 28500
        assert [utterance.split("-")[1] for utterance in written.enroll] == given.enroll
        assert [utterance.split("-")[1] for utterance in written.test] == given.test
        assert (written.labels == given.labels).all()


def test_speechocean762_without_its_lists_gets_equal_ones(shared_data: Path, tmp_path: Path) -> None:
    """The generated targets equal those of the corpus, and its hard nontargets follow our rule."""
    corpus = shared_data / "speechocean762"
    (tmp_path / "corpus").mkdir()
    for name in ("WAVE", "train", "test"):
        (tmp_path / "corpus" / name).symlink_to(corpus / name)
    make_lists(tmp_path / "corpus", tmp_path / "made", ListOptions())
    make_lists(corpus, tmp_path / "given", ListOptions())
    spk2gender, spk2age = (read_table(tmp_path / "made/test" / file) for file in ("spk2gender", "spk2age"))
    groups = {
        speaker: (sex, int(spk2age[speaker]) >= 13, int(spk2age[speaker]) >= 18) for speaker, sex in spk2gender.items()
    }
    for name in ("trials_O", "trials_H"):
        made, given = (read_trials(tmp_path / origin / "trials" / name) for origin in ("made", "given"))
        pairs = [{*zip(t.enroll, t.test, t.labels.tolist(), strict=True)} for t in (made, given)]
        targets = [{pair for pair in part if pair[2]} for part in pairs]
        assert targets[0] == targets[1]
        assert len(pairs[0]) == len(pairs[1]) == 28500
        if name == "trials_H":
            for enroll, test, _ in pairs[0] | pairs[1]:
                assert groups[enroll.split("-")[0]] == groups[test.split("-")[0]]


# --- Speech without speakers ---


def test_a_folder_of_unlabelled_speech_is_added_to_train(tmp_path: Path) -> None:
    tree(tmp_path / "corpus/train")
    tree(tmp_path / "corpus/test")
    for name in ("a.wav", "calls 1/x-y.flac", "calls 1/deep/er/z.opus"):
        audio(tmp_path / "corpus/unlabelled" / name)
    make_lists(tmp_path / "corpus", tmp_path / "data", ListOptions())
    ids = ["unlabelled-a", "unlabelled-calls_1_deep_er_z", "unlabelled-calls_1_x_y"]
    assert sorted(read_table(tmp_path / "data/train/spk2unlabelled")) == ids
    utt2spk = read_table(tmp_path / "data/train/utt2spk")
    assert [utt2spk[name] for name in ids] == ids
    assert len(utt2spk) == 32 + 3
    audio_of = read_table(tmp_path / "data/train/wav.scp")
    assert audio_of["unlabelled-calls_1_x_y"] == str(tmp_path / "corpus/unlabelled/calls 1/x-y.flac")
    assert not (tmp_path / "data/test/spk2unlabelled").exists()
    validate(tmp_path / "data/train", feats=False)


def test_an_unlabelled_data_dir_needs_no_speakers(tmp_path: Path) -> None:
    audio(tmp_path / "unlabelled/one.wav")
    text(tmp_path / "unlabelled/wav.scp", "call-1 one.wav", "unused one.wav")
    text(tmp_path / "unlabelled/segments", "call-1-b call-1 1.5 3", "call-1-a call-1 0 1.5")
    tree(tmp_path / "test")
    sets, _ = read_corpus(tmp_path, ListOptions())
    part = sets["train"]
    assert part.wavs == {"call-1": str(tmp_path / "unlabelled/one.wav")}
    assert part.segments == {"unlabelled-call_1_a": "call-1 0 1.5", "unlabelled-call_1_b": "call-1 1.5 3"}
    assert part.utt2spk == {name: name for name in part.segments}
    assert part.unlabelled == set(part.segments)
    (tmp_path / "unlabelled/segments").unlink()
    part = read_corpus(tmp_path, ListOptions())[0]["train"]
    assert set(part.wavs) == {"unlabelled-call_1", "unlabelled-unused"}


def test_a_data_dir_may_list_its_unlabelled_utterances(tmp_path: Path) -> None:
    folder = kaldi_dir(tmp_path / "train")
    audio(folder / "c.wav")
    for name, line in (("wav.scp", "c c.wav"), ("utt2spk", "c c"), ("spk2unlabelled", "c yes")):
        old = (folder / name).read_text() if (folder / name).exists() else ""
        (folder / name).write_text(f"{old}{line}\n")
    part = read_set(folder)
    assert part.unlabelled == {"c"}
    assert part.of_speakers({"a", "b"}).unlabelled == set()
    (tmp_path / "train").rename(tmp_path / "test")
    with pytest.raises(InputError, match="'c' is unlabelled: trials need speakers"):
        read_corpus(tmp_path, ListOptions())


def test_a_random_split_puts_unlabelled_utterances_into_train(tmp_path: Path) -> None:
    names = [f"s{n}-{m}" for n in range(4) for m in range(2)]
    audio(tmp_path / "one.wav")
    text(tmp_path / "wav.scp", *(f"{name} one.wav" for name in [*names, "x", "y"]))
    text(tmp_path / "utt2spk", *(f"{name} {name[:2]}" for name in names), "x x", "y y")
    text(tmp_path / "spk2unlabelled", "x yes", "y yes")
    for seed in range(5):
        sets, _ = read_corpus(tmp_path, ListOptions(seed=seed, test_share=0.5))
        assert sets["train"].unlabelled == {"x", "y"}
        assert len(set(sets["test"].utt2spk.values())) == 2


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["unlabelled/a.wav", "anna/b.wav"], "unlabelled: put the speakers into"),
        (["unlabelled/a.txt", "train/anna/b.wav"], "unlabelled: no audio file"),
        (["unlabelled/a.m4a", "train/anna/b.wav"], "cannot be read; convert it"),
        (["unlabelled/a b.wav", "unlabelled/a-b.wav", "train/anna/b.wav"], "both get the id 'unlabelled-a_b'"),
        (["unlabelled/a.wav", "train/unlabelled/a.wav"], "utterance 'unlabelled-a' is in both sets"),
    ],
)
def test_unlabelled_speech_that_cannot_be_used_is_an_error(tmp_path: Path, files: list[str], message: str) -> None:
    for name in files:
        audio(tmp_path / name)
    with pytest.raises(InputError, match=message):
        read_corpus(tmp_path, ListOptions())
