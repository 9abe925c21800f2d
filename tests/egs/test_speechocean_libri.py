"""`egs/speechocean_libri/prepare.sh`: speechocean762 with one clip of each further training speaker."""

import hashlib
import http.server
import subprocess
import tarfile
import threading
from functools import partial
from pathlib import Path

import pytest
import soundfile

from tests.egs.test_prepare import Prepare, names, original_speechocean

CORPUS = "speechocean_libri"
CLIPS = {"ls103-1240-0000": "ls103", "ls1034-121119-0000": "ls1034", "ls40-121026-0000": "ls40"}
THREE = {"LIBRISPEECH_SPEAKERS": "3"}


@pytest.fixture
def prepare(repository: Path, tmp_path: Path) -> Prepare:
    return Prepare(repository, tmp_path)


def librispeech(folder: Path) -> Path:
    """Speakers with one or two chapters. The first chapter by name (121026) is not the first by number (222)."""
    for chapter in ("103/1240", "103/1241", "1034/121119", "40/222", "40/121026"):
        inside = folder / "train-clean-100" / chapter
        inside.mkdir(parents=True)
        stem = chapter.replace("/", "-")
        (inside / f"{stem}.trans.txt").write_text(f"{stem}-0000 SOME WORDS\n")
        for utterance in ("0000", "0001"):
            soundfile.write(inside / f"{stem}-{utterance}.flac", [0.0] * 160, 16000)
    return folder


def table(path: Path) -> dict[str, str]:
    return dict(line.split(maxsplit=1) for line in path.read_text().splitlines())


def contents(*folders: Path) -> dict[str, bytes]:
    return {f"{folder.name}/{path.name}": path.read_bytes() for folder in folders for path in folder.iterdir()}


def assert_only_the_training_set_differs(prepare: Prepare, corpora: Path, clips: dict[str, str]) -> None:
    """Compare the data of stages 0 and 1 for this corpus and for speechocean762."""
    for corpus, folder in (("speechocean762", corpora / "speechocean762"), (CORPUS, corpora)):
        variables = {"LIBRISPEECH_SPEAKERS": str(len(clips))}
        for command in (["get", folder], ["lists", folder, f"data/{corpus}"]):
            result = prepare(corpus, *command, **variables)
            assert result.returncode == 0, result.stderr
    plain, joined = prepare.folder / "data/speechocean762", prepare.folder / "data" / CORPUS
    assert contents(plain / "test", plain / "trials") == contents(joined / "test", joined / "trials")
    assert table(joined / "train/utt2spk") == table(plain / "train/utt2spk") | clips
    assert (joined / "train/utt2spk").read_text().startswith((plain / "train/utt2spk").read_text())
    wavs = table(joined / "train/wav.scp")
    assert {utterance: Path(wavs[utterance]).stem for utterance in clips} == {key: key[2:] for key in clips}
    assert all(Path(path).is_file() for path in wavs.values())


def test_sets_and_trials_have_the_names_of_the_extended_corpus(repository: Path) -> None:
    def values(corpus: str) -> list[str]:
        script = f'. egs/{corpus}/corpus.conf; for name in {{train,test,cohort}}_set trials; do echo "${{!name}}"; done'
        script += '; [ -e "$default_config" ]; [[ "$corpus_variables" == *"SPEECHOCEAN762_URL SPEECHOCEAN762_SEED"* ]]'
        command = ["bash", "-euc", script]
        return subprocess.run(command, cwd=repository, text=True, capture_output=True, check=True).stdout.split("\n")

    assert values(CORPUS) == values("speechocean762")


def test_the_first_clip_of_each_speaker_is_added_to_the_training_set(prepare: Prepare, tmp_path: Path) -> None:
    original_speechocean(tmp_path / "mine/speechocean762")
    librispeech(tmp_path / "mine/LibriSpeech")
    before = names(tmp_path / "mine")
    assert_only_the_training_set_differs(prepare, tmp_path / "mine", CLIPS)
    assert names(tmp_path / "mine") == before


def test_selected_clips_are_used_unchanged(prepare: Prepare, tmp_path: Path) -> None:
    original_speechocean(tmp_path / "mine/speechocean762")
    (tmp_path / "mine/librispeech_clips").mkdir()
    for clip in CLIPS:
        (tmp_path / f"mine/librispeech_clips/{clip[2:]}.opus").write_bytes(b"audio")
    (tmp_path / "mine/librispeech_clips/LICENSE.TXT").write_text("of no speaker")
    assert_only_the_training_set_differs(prepare, tmp_path / "mine", CLIPS)


@pytest.mark.parametrize("command", [["get", "mine"], ["lists", "mine", "data/x"]])
def test_missing_parts_are_errors_with_what_to_do(prepare: Prepare, tmp_path: Path, command: list[str]) -> None:
    def error() -> str:
        result = prepare(CORPUS, *command)
        assert result.returncode == 1
        return result.stderr.splitlines()[-1]

    (tmp_path / "mine").mkdir()
    assert "mine/speechocean762 is not speechocean762: it has no train/wav.scp; leave --corpus-dir out" in error()
    original_speechocean(tmp_path / "mine/speechocean762")
    assert "mine has neither librispeech_clips/ nor LibriSpeech/train-clean-100/: put one there, or leave" in error()
    librispeech(tmp_path / "mine/LibriSpeech")
    assert "mine/LibriSpeech/train-clean-100: clips of 3 speakers, expected 251" in error()
    assert not (tmp_path / "data").exists()


def test_both_are_downloaded_from_mirrors(prepare: Prepare, tmp_path: Path) -> None:
    served = tmp_path / "served"
    folders = {
        "SPEECHOCEAN762": original_speechocean(served / "speechocean762"),
        "LIBRISPEECH": librispeech(served / "LibriSpeech"),
    }
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(served))
    mirrors = {}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for prefix, folder in folders.items():
            archive = served / f"{prefix}.tar.gz"
            with tarfile.open(archive, "w:gz") as tar:
                tar.add(folder, folder.name)
            mirrors[f"{prefix}_URL"] = f"http://127.0.0.1:{server.server_address[1]}/{archive.name}"
            mirrors[f"{prefix}_SIZE"] = str(archive.stat().st_size)
        corpus = tmp_path / "data" / CORPUS / "corpus"
        bad = prepare(CORPUS, "get", f"data/{CORPUS}/corpus", **mirrors)
        assert bad.returncode == 1
        assert "expected d4ddd1d5a6ab3030" in bad.stderr  # the published archive's, for this one is not it
        assert [path.name for path in corpus.iterdir()] == ["speechocean762"]
        mirrors["LIBRISPEECH_SHA256"] = hashlib.sha256((served / "LIBRISPEECH.tar.gz").read_bytes()).hexdigest()
        good = prepare(CORPUS, "get", corpus, **mirrors, **THREE)
        server.shutdown()
    assert good.returncode == 0, good.stderr
    assert sorted(path.name for path in corpus.iterdir()) == ["LibriSpeech", "speechocean762"]
    kept = names(corpus / "LibriSpeech")
    assert len(kept) == 5
    assert all(name.endswith("-0000.flac") for name in kept)
    assert (tmp_path / "data/speechocean762/corpus/test/wav.scp").is_file()  # where that corpus looks for it, too
    assert_only_the_training_set_differs(prepare, corpus, CLIPS)  # the server is gone: nothing is fetched again


def test_real_speech(prepare: Prepare, tmp_path: Path, shared_data: Path) -> None:
    clips = {f"ls{path.stem}": f"ls{path.stem.split('-')[0]}" for path in shared_data.glob("librispeech_clips/*.opus")}
    assert_only_the_training_set_differs(prepare, shared_data, clips)
    data = tmp_path / "data" / CORPUS
    assert [len(table(data / "train" / name)) for name in ("utt2spk", "spk2utt")] == [2751, 376]
    assert len(table(data / "test/spk2utt")) == 75
    for name in ("trials_O", "trials_H"):
        assert len((data / "trials" / name).read_text().splitlines()) == 28500
