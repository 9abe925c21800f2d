"""VoxCeleb from folders to lists, on a small tree with its layout: `egs/voxceleb/prepare.sh`, stages 0 and 1."""

import http.server
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import soundfile

from tests.egs.test_prepare import Prepare
from tests.voxceleb_tree import LAYOUTS, Tree, make_musan, make_rirs, make_tree
from wespeaker_lite.audio.reading import read_audio
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.corpora import voxceleb
from wespeaker_lite.corpora.voxceleb import Options, get, prepare
from wespeaker_lite.kaldi.tables import read_table
from wespeaker_lite.kaldi.validate import validate

LISTS = list(voxceleb.LISTS.values())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return make_tree(Tree(tmp_path_factory.mktemp("made")))


@pytest.fixture
def tree(made: Tree, tmp_path: Path) -> Tree:
    """A copy that a test may change. `root` is the output of stage 0: vox1/ and vox2/ in one folder."""
    shutil.copytree(made.root, tmp_path / "corpus")
    return replace(made, root=tmp_path / "corpus")


def move_parts(tree: Tree, layout: str) -> Tree:
    """Move the parts to another layout of unpacked archives."""
    new = replace(tree, layout=layout)
    for part in tree.speakers:
        new.folder(part).mkdir(parents=True, exist_ok=True)
        for speaker in tree.speakers[part]:
            shutil.move(tree.folder(part) / speaker, new.folder(part) / speaker)
    return new


def prepared(tree: Tree, **options: object) -> tuple[Path, list[str]]:
    """Prepare as stage 1 does. Returns the data folder, and the differences that were found."""
    data = tree.root.parent / "data"
    prepare(tree.root, data, Options(**options))
    return data, (data / "differences.txt").read_text().splitlines()


def ids(tree: Tree, *parts: str) -> list[str]:
    return sorted(utterance.replace("/", "-") for part in parts for utterance in tree.utterances(part))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_gives_the_same_lists(tree: Tree, layout: str) -> None:
    tree = move_parts(tree, layout)
    data, _ = prepared(tree)
    for name, parts in (("train", ["vox2 dev"]), ("test", ["vox1 dev", "vox1 test"])):
        assert list(read_table(data / name / "utt2spk")) == ids(tree, *parts)
        assert validate(data / name, feats=False) == (len(ids(tree, *parts)), 3 if name == "train" else 5)
    wavs = read_table(data / "test/wav.scp")
    for utterance in tree.utterances("vox1 test"):
        assert wavs[utterance.replace("/", "-")] == str(tree.path("vox1 test", utterance))


def test_m4a_is_read_through_a_pipe_and_wav_as_it_is(tree: Tree) -> None:
    data, _ = prepared(tree)
    train, test = read_table(data / "train/wav.scp"), read_table(data / "test/wav.scp")
    assert all(value.endswith("|") for value in train.values())
    assert all(Path(value).is_file() for value in test.values())
    samples = read_audio(next(iter(train.values())), 16000)
    assert abs(len(samples) - 16000) < 2500  # AAC adds its run-up
    assert samples.std() > 0.005


def test_trials_are_those_of_the_published_lists(tree: Tree) -> None:
    data, differences = prepared(tree)
    for letter, name in voxceleb.LISTS.items():
        published = [line.split() for line in (tree.root / "vox1" / name).read_text().splitlines()]
        ours = [line.split() for line in (data / f"trials/trials_{letter}").read_text().splitlines()]
        assert [f"{a.replace('/', '-')}.wav {b.replace('/', '-')}.wav {int(c == 'target')}" for a, b, c in ours] == [
            f"{b.replace('/', '-')} {c.replace('/', '-')} {a}" for a, b, c in published
        ]
        assert any(
            f"{name}: {len(published)} trials, published are {voxceleb.KNOWN_TRIALS[letter]}" in line
            for line in differences
        )


def test_sexes_come_from_the_tables(tree: Tree) -> None:
    data, _ = prepared(tree)
    assert read_table(data / "train/spk2gender") == {"id00012": "m", "id00015": "f", "id09272": "m"}
    assert read_table(data / "test/spk2gender")["id10309"] == "f"
    (tree.root / "vox1/vox1_meta.csv").unlink()
    data, _ = prepared(tree)
    assert not (data / "test/spk2gender").exists()


def test_every_difference_from_the_published_corpus_is_listed(tree: Tree, caplog: pytest.LogCaptureFixture) -> None:
    shutil.rmtree(tree.folder("vox2 dev") / "id00015")
    split = [f"1 {utterance}.wav\n" for utterance in tree.utterances("vox1 dev")]
    (tree.root / "vox1/iden_split.txt").write_text("".join(split) + "2 id10001/other/00001.wav\n")
    with caplog.at_level(logging.INFO):
        _, differences = prepared(tree)
    assert {"vox1 dev: 3 speakers, published are 1211", "vox1 dev: 12 utterances, published are 148642"} <= set(
        differences
    )
    assert "vox1 test: speaker id10271 is missing" in differences
    assert sum("vox1" in line and "is missing" in line for line in differences) == 1208 + 38
    assert "vox2 dev: speaker id00015 is missing" in differences  # its table knows it
    assert "vox1 dev: speaker id10001 has 4 utterances, published are 5" in differences
    assert not any("id10269 has" in line for line in differences)
    assert f"{len(differences)} differences from what is published, all in" in caplog.text


def test_the_published_numbers_of_speakers_give_no_difference(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {part: (len(tree.speakers[part]), len(tree.utterances(part))) for part in tree.speakers}
    monkeypatch.setattr(voxceleb, "KNOWN", {tuple(part.split()): size for part, size in sizes.items()})
    lines = {letter: (tree.root / "vox1" / name).read_text().count("\n") for letter, name in voxceleb.LISTS.items()}
    monkeypatch.setattr(voxceleb, "KNOWN_TRIALS", lines)
    monkeypatch.setattr(voxceleb, "VOX1_DEV", frozenset(tree.speakers["vox1 dev"]))
    monkeypatch.setattr(voxceleb, "VOX1_TEST", frozenset(tree.speakers["vox1 test"]))
    assert prepared(tree, strict=True)[1] == ["all is as published"]
    tree.path("vox2 dev", tree.utterances("vox2 dev")[0]).unlink()
    with pytest.raises(InputError, match=r"vox2 dev: 11 utterances, published are 12 \(1 differences, .*STRICT"):
        prepared(tree, strict=True)


def empty(tree: Tree) -> str:
    tree.path("vox2 dev", tree.utterances("vox2 dev")[0]).write_bytes(b"")
    return "00001.m4a: 0 bytes or a dead link; left out"


def dead_link(tree: Tree) -> str:
    path = tree.path("vox2 dev", tree.utterances("vox2 dev")[0])
    path.unlink()
    path.symlink_to("gone.m4a")
    return "00001.m4a: 0 bytes or a dead link; left out"


def hidden(tree: Tree) -> str:
    path = tree.path("vox2 dev", tree.utterances("vox2 dev")[0])
    path.rename(path.with_name(f"._{path.name}"))
    (tree.folder("vox2 dev") / ".DS_Store").write_text("x")
    return "vox2 dev: 11 utterances"


def emptied_speaker(tree: Tree) -> str:
    (tree.folder("vox2 dev") / "id00020").mkdir()
    return "id00020: an empty folder"


def both_kinds(tree: Tree) -> str:
    utterance = tree.utterances("vox2 dev")[0]
    shutil.copy(tree.path("vox1 dev", tree.utterances("vox1 dev")[0]), tree.folder("vox2 dev") / f"{utterance}.WAV")
    return "00001.WAV is taken, not"


def no_speaker(tree: Tree) -> str:
    shutil.copytree(tree.folder("vox2 dev") / "id00012", tree.folder("vox2 dev") / "backup")
    return "left out"


def no_video(tree: Tree) -> str:
    shutil.copy(tree.path("vox2 dev", tree.utterances("vox2 dev")[0]), tree.folder("vox2 dev") / "id00012/00001.m4a")
    return "id00012/00001.m4a: not as id10001/1zcIwhmdeo4/00001.wav; left out"


@pytest.mark.parametrize("defect", [empty, dead_link, hidden, emptied_speaker, both_kinds, no_speaker, no_video])
def test_a_defect_is_listed_and_all_else_is_prepared(tree: Tree, defect: Callable[[Tree], str]) -> None:
    said = defect(tree)
    data, differences = prepared(tree)
    assert any(said in line for line in differences), differences
    left_out = defect in (empty, dead_link, hidden)
    utterances = read_table(data / "train/wav.scp")
    assert list(utterances) == ids(tree, "vox2 dev")[left_out:] or set(utterances) < set(ids(tree, "vox2 dev"))
    assert len(utterances) == 12 - left_out
    assert utterances.get(tree.utterances("vox2 dev")[0].replace("/", "-"), "").endswith(".WAV") == (
        defect is both_kinds
    )


def test_other_files_and_links_do_not_change_the_lists(tree: Tree) -> None:
    data, before = prepared(tree)
    expected = read_table(data / "train/utt2spk"), read_table(data / "test/utt2spk")
    shutil.copytree(tree.folder("vox2 dev"), tree.root / "vox2/dev/txt")
    (tree.path("vox1 dev", tree.utterances("vox1 dev")[0]).with_suffix(".txt")).write_text("frames")
    folders = (tree.folder("vox2 dev") / "id00012", tree.folder("vox1 test"), tree.root / "vox1")
    for number, folder in enumerate(folders):
        folder.rename(tree.root / f"moved{number}")
        folder.symlink_to(tree.root / f"moved{number}")
    data, after = prepared(tree)
    assert (read_table(data / "train/utt2spk"), read_table(data / "test/utt2spk")) == expected
    assert [line.rpartition("/")[2] for line in after] == [line.rpartition("/")[2] for line in before]


def test_upper_case_endings_are_read(tree: Tree) -> None:
    for path in list(tree.root.rglob("*.wav")) + list(tree.root.rglob("*.m4a")):
        path.rename(path.with_suffix(path.suffix.upper()))
    data, _ = prepared(tree)
    assert len(read_table(data / "train/wav.scp")) == 12
    assert len(read_table(data / "test/wav.scp")) == 20
    assert all(value.endswith("|") for value in read_table(data / "train/wav.scp").values())


def test_an_utterance_of_a_trial_must_exist(tree: Tree) -> None:
    tree.path("vox1 test", tree.utterances("vox1 test")[1]).write_bytes(b"")
    with pytest.raises(InputError, match=r"veri_test2.txt:1: utterance 'id10270/.*00002.wav' is not in the data"):
        prepared(tree)
    data, _ = prepared(tree, trials=("E",))
    assert sorted(path.name for path in (data / "trials").iterdir()) == ["trials_E"]


def test_train_and_test_have_no_speaker_in_common(tree: Tree) -> None:
    data, _ = prepared(tree, train="both", trials=("O",))
    assert list(read_table(data / "train/utt2spk")) == ids(tree, "vox1 dev", "vox2 dev")
    assert list(read_table(data / "test/utt2spk")) == ids(tree, "vox1 test")
    data, _ = prepared(tree, train="vox1", trials=("O",))
    assert list(read_table(data / "train/utt2spk")) == ids(tree, "vox1 dev")
    for train in ("vox1", "both"):
        with pytest.raises(InputError, match=r"id10001 is in train and in test \(3 such\): E and H test on"):
            prepared(tree, train=train)
    shutil.copytree(tree.folder("vox1 test") / "id10270", tree.folder("vox2 dev") / "id10270")
    with pytest.raises(InputError, match=r"id10270 is in train and in test \(1 such\)$"):
        prepared(tree)
    shutil.copytree(tree.folder("vox1 dev") / "id10001", tree.folder("vox2 dev") / "id10001")
    with pytest.raises(InputError, match="speaker 'id10001' is in both sets"):
        prepared(tree, train="both", trials=("O",))


def test_without_vox2_a_model_can_be_tested_but_not_trained(tree: Tree, caplog: pytest.LogCaptureFixture) -> None:
    shutil.rmtree(tree.root / "vox2")
    data, _ = prepared(tree)
    assert not (data / "train").exists()
    assert "no VoxCeleb2, so no training set" in caplog.text
    with pytest.raises(InputError, match="name its folder by --vox2-dir"):
        prepared(tree, train="both", trials=("O",))


@pytest.mark.parametrize("options", [{"train": "vox3"}, {"trials": ("O", "X")}, {"trials": ()}])
def test_wrong_options_are_named(options: dict) -> None:
    with pytest.raises(InputError, match=r"VOXCELEB_T.* expected"):
        Options(**options)


def test_a_table_of_another_form_is_named(tree: Tree) -> None:
    (tree.root / "vox1/vox1_meta.csv").write_text("id10001\tA\tm\tIreland\tdev\nid10002\tB\tx\tIreland\tdev\n")
    with pytest.raises(InputError, match=r"vox1_meta.csv:2: expected id, name, m or f"):
        prepared(tree)


# stage 0


def test_other_folders_are_refused(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "none/vox1/wav/speaker1").mkdir(parents=True)
    with pytest.raises(InputError, match=r"vox1 is not VoxCeleb: there is no folder id00000/"):
        get(tmp_path / "none", Options(), "")
    with pytest.raises(InputError, match=r"VoxCeleb1 is missing.*--vox1-dir"):
        get(tmp_path, Options(), "")


def test_m4a_without_ffmpeg_says_what_to_install(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    get(tree.root, Options(), "")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    for step in (lambda: get(tree.root, Options(), ""), lambda: prepared(tree)):
        with pytest.raises(
            InputError, match=r"m4a needs ffmpeg.*apt-get install ffmpeg.*tools/install.sh --extras m4a"
        ):
            step()


def test_lists_are_downloaded_if_no_folder_has_them(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    for name in LISTS[:2]:
        (tree.root / "vox1" / name).rename(tmp_path / "served" / name)
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        get(tree.root, Options(), url)
        (tree.root / "vox1" / LISTS[2]).unlink()
        with pytest.raises(InputError, match=r"list_test_hard2.txt: HTTP Error 404"):
            get(tree.root, Options(), url)
        server.shutdown()
    assert sorted(path.name for path in (tree.root / "meta").iterdir()) == sorted(LISTS[:2])
    assert (prepared(tree, trials=("O", "E"))[0] / "trials/trials_O").is_file()


# prepare.sh and the stages


@pytest.fixture
def script(repository: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    return partial(Prepare(repository, tmp_path), "voxceleb")


@pytest.mark.parametrize("arguments", [["get"], ["lists", "data/voxceleb/corpus"], ["fetch", "data/voxceleb/corpus"]])
def test_wrong_calls_show_the_usage(script: Callable, arguments: list[str]) -> None:
    result = script(*arguments)
    assert result.returncode == 1
    assert "Usage: " in result.stderr


def test_m4a_is_decoded_once_and_a_second_run_resumes(
    script: Callable, repository: Path, tree: Tree, tmp_path: Path
) -> None:
    runner = str(repository / "tools/run.pl")
    dirs = ("--vox1-dir", tree.root / "vox1", "--vox2-dir", tree.root / "vox2", "--cmd", runner, "--nj", 2)
    lists = ("lists", "data/voxceleb/corpus", "data/voxceleb")
    assert script(*dirs, "get", "data/voxceleb/corpus").returncode == 0
    cut = tree.path("vox2 dev", tree.utterances("vox2 dev")[3])
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    failed = script(*dirs, *lists, VOXCELEB_DECODE="flac")
    assert failed.returncode == 1
    logs = "".join(path.read_text() for path in (tmp_path / "data/voxceleb/log").iterdir())
    assert f"{cut}: ffmpeg failed with code" in logs
    flacs = {path: path.stat().st_mtime_ns for path in (tmp_path / "data/voxceleb/flac").rglob("*.flac")}
    assert len(flacs) == 11
    cut.write_bytes(whole)
    done = script("--cmd", runner, *lists, VOXCELEB_DECODE="flac")  # the folders are known now
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in flacs} == flacs
    wavs = read_table(tmp_path / "data/voxceleb/train/wav.scp")
    assert {soundfile.info(path).subtype for path in wavs.values()} == {"PCM_16"}
    assert not list((tmp_path / "data/voxceleb/flac").rglob(".*"))


def test_a_pipe_names_a_truncated_m4a(tree: Tree) -> None:
    data, _ = prepared(tree)
    cut = tree.path("vox2 dev", tree.utterances("vox2 dev")[0])
    os.truncate(cut, cut.stat().st_size // 2)
    with pytest.raises(InputError, match=rf"{cut.name}.*failed with code"):
        read_audio(read_table(data / "train/wav.scp")[tree.utterances("vox2 dev")[0].replace("/", "-")], 16000)


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Path:
    for name in ("conf", "egs", "local", "tools", "wespeaker_lite", "run.sh", "path.sh"):
        place = tmp_path / "checkout" / name
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(repository / name)
    for file in repository.glob("requirements*.txt"):
        (tmp_path / "checkout" / file.name).symlink_to(file)
    return tmp_path / "checkout"


def test_run_sh_makes_lists_skips_and_notices_what_changed(checkout: Path, tree: Tree, tmp_path: Path) -> None:
    def run(*options: str) -> str:
        command = ["bash", "checkout/run.sh", "--corpus", "voxceleb", "--stop-stage", "1", *options]
        done = subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, check=False)
        assert "Traceback" not in done.stderr
        return f"{done.returncode} {done.stdout}{done.stderr}"

    make_musan(tmp_path)
    make_rirs(tmp_path)
    assert run().startswith("1 ")
    assert "name its folder by --vox1-dir" in run()
    dirs = ("--vox1-dir", "corpus/vox1", "--vox2-dir", "corpus/vox2")
    noise = ("--musan-dir", "musan", "--rirs-dir", "RIRS_NOISES")
    assert run(*dirs, *noise).startswith("0 ")
    data = checkout / "data/voxceleb"
    assert len((data / "train/audio.list").read_text().splitlines()) == 12
    stamp = (data / ".lists.stamp").stat().st_mtime_ns
    assert run(*dirs).count("done already") == 2
    assert run().count("done already") == 2
    tree.path("vox2 dev", tree.utterances("vox2 dev")[0]).unlink()
    assert run(*dirs).count("done already") == 1
    assert (data / ".lists.stamp").stat().st_mtime_ns != stamp
    assert len((data / "train/audio.list").read_text().splitlines()) == 11
    assert "need --corpus voxceleb" in run("--corpus", "mini", *dirs)
    assert "nowhere: no such folder" in run("--musan-dir", "nowhere")
    assert "instead of --corpus-dir" in run("--corpus-dir", "corpus")
