"""`egs/*/prepare.sh` as the stages call it, but in another folder than the checkout, with a new data/."""

import hashlib
import http.server
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from functools import partial
from pathlib import Path

import pytest
import soundfile

EGS = Path(__file__).parents[2] / "egs"
CORPORA = sorted({path.parent.name for path in EGS.glob("*/corpus.conf")} - {"voxceleb"})  # whose options are others
TINY = {
    "MINI_TRAIN_SPEAKERS": "1",
    "MINI_TEST_SPEAKERS": "4",
    "MINI_SESSIONS": "2",
    "MINI_TRAIN_UTTERANCES": "1",
    "MINI_TEST_UTTERANCES": "1",
    "MINI_JOBS": "1",
}


class Prepare:
    """Runs the prepare.sh of a corpus in a new folder."""

    def __init__(self, repository: Path, folder: Path) -> None:
        self.repository, self.folder = repository, folder

    def __call__(self, corpus: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(self.repository), "OMP_NUM_THREADS": "1", **variables}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        script = self.repository / "egs" / corpus / "prepare.sh"
        command = [str(script), *map(str, arguments)]
        return subprocess.run(command, cwd=self.folder, env=environment, text=True, capture_output=True, check=False)


@pytest.fixture
def prepare(repository: Path, tmp_path: Path) -> Prepare:
    return Prepare(repository, tmp_path)


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("corpus", CORPORA)
@pytest.mark.parametrize("arguments", [[], ["get"], ["lists", "x"], ["get", "x", "y"], ["download", "x"]])
def test_wrong_calls_show_the_usage(prepare: Prepare, corpus: str, arguments: list[str]) -> None:
    result = prepare(corpus, *arguments)
    assert result.returncode == 1
    assert "Usage: " in result.stderr
    assert "e.g.: " in result.stderr


@pytest.mark.parametrize("corpus", CORPORA)
def test_corpus_conf_has_what_the_stages_need(repository: Path, corpus: str) -> None:
    wanted = ("default_config", "train_set", "test_set", "cohort_set", "trials", "corpus_variables")
    script = (
        f'set -euo pipefail; . "egs/{corpus}/corpus.conf"; for name in {" ".join(wanted)}; do echo "${{!name}}"; done'
    )
    result = subprocess.run(["bash", "-c", script], cwd=repository, text=True, capture_output=True, check=True)
    values = dict(zip(wanted, result.stdout.splitlines(), strict=True))
    assert (repository / values["default_config"]).is_file()
    assert (values["train_set"], values["test_set"]) == ("train", "test")
    assert all(name.startswith("trials_") for name in values["trials"].split())


def test_mini_is_made_and_listed_and_kept_by_a_second_get(prepare: Prepare, tmp_path: Path) -> None:
    result = prepare("mini", "get", "data/mini/corpus", **TINY)
    assert result.returncode == 0, result.stderr
    corpus = tmp_path / "data/mini/corpus"
    times = {path: path.stat().st_mtime_ns for path in corpus.rglob("*.flac")}
    assert len(times) == 2 + 4 * 2
    assert prepare("mini", "get", corpus, **TINY).returncode == 0  # by its absolute path
    assert {path: path.stat().st_mtime_ns for path in corpus.rglob("*.flac")} == times
    result = prepare("mini", "lists", corpus, "data/mini", **TINY)
    assert result.returncode == 0, result.stderr
    files = ["spk2gender", "spk2utt", "utt2spk", "wav.scp"]
    expected = [f"{name}/{file}" for name in ("test", "train") for file in files] + [
        "trials/trials_H",
        "trials/trials_O",
    ]
    assert [name for name in names(tmp_path / "data/mini") if not name.startswith("corpus/")] == expected
    assert len((tmp_path / "data/mini/trials/trials_O").read_text().splitlines()) == 2 * 4
    changed = prepare("mini", "get", corpus, **{**TINY, "MINI_SESSIONS": "3"})
    assert changed.returncode == 1
    assert "other options" in changed.stderr


def test_mini_elsewhere_is_only_checked(prepare: Prepare, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    result = prepare("mini", "get", "mine", **TINY)
    assert result.returncode == 1
    assert "has no simulated corpus" in result.stderr
    assert names(tmp_path) == []


def original_speechocean(folder: Path) -> Path:
    """The layout of the public archive: upper-case endings, tabs in some tables, no trial lists."""
    speakers = {"train": ["0001", "0005"], "test": ["0003", "0024", "1030", "1039"]}
    for name, members in speakers.items():
        rows = [(f"0{s}0012"[-9:], s) for s in members] + [(f"0{s}0345"[-9:], s) for s in members]
        (folder / name).mkdir(parents=True)
        (folder / name / "wav.scp").write_text("".join(f"{u}\tWAVE/SPEAKER{s}/{u}.WAV\n" for u, s in rows))
        (folder / name / "utt2spk").write_text("".join(f"{u} {s}\n" for u, s in rows))
        (folder / name / "spk2gender").write_text("".join(f"{s} f\n" for s in reversed(members)))
        (folder / name / "spk2age").write_text("".join(f"{s}\t{8 + 30 * (s > '1')}\n" for s in members))
        for utterance, speaker in rows:
            (folder / "WAVE" / f"SPEAKER{speaker}").mkdir(parents=True, exist_ok=True)
            soundfile.write(folder / "WAVE" / f"SPEAKER{speaker}" / f"{utterance}.WAV", [0.0] * 160, 16000)
    return folder


def test_speechocean_is_downloaded_from_a_mirror_and_listed(prepare: Prepare, tmp_path: Path) -> None:
    original_speechocean(tmp_path / "served" / "speechocean762")
    archive = tmp_path / "served" / "speechocean762.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "served" / "speechocean762", "speechocean762")
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        mirror = {
            "SPEECHOCEAN762_URL": f"http://127.0.0.1:{server.server_address[1]}/speechocean762.tar.gz",
            "SPEECHOCEAN762_SIZE": str(archive.stat().st_size),
        }
        bad = prepare("speechocean762", "get", "data/speechocean762/corpus", SPEECHOCEAN762_SHA256="1" * 64, **mirror)
        assert bad.returncode == 1
        assert "SHA-256 is" in bad.stderr
        assert not (tmp_path / "data/speechocean762/corpus").exists()
        good = hashlib.sha256(archive.read_bytes()).hexdigest()
        result = prepare("speechocean762", "get", "data/speechocean762/corpus", SPEECHOCEAN762_SHA256=good, **mirror)
        server.shutdown()
    assert result.returncode == 0, result.stderr
    assert "test has 8 utterances of 4 speakers" in result.stderr
    assert (
        prepare("speechocean762", "get", "data/speechocean762/corpus").returncode == 0
    )  # there, so no server is asked
    result = prepare("speechocean762", "lists", "data/speechocean762/corpus", "data/speechocean762")
    assert result.returncode == 0, result.stderr
    wavs = (tmp_path / "data/speechocean762/test/wav.scp").read_text().splitlines()
    assert wavs[0] == f"0003-000030012 {tmp_path}/data/speechocean762/corpus/WAVE/SPEAKER0003/000030012.WAV"
    hard = (tmp_path / "data/speechocean762/trials/trials_H").read_text().split("\n")[:-1]
    pairs = {(row.split()[0][:4], row.split()[1][:4]) for row in hard if row.endswith(" nontarget")}
    assert pairs <= {("0003", "0024"), ("1030", "1039")}  # children with children, adults with adults
    assert len(hard) == 8


def test_speechocean_elsewhere_is_never_downloaded_into(prepare: Prepare, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for command in (["get", "mine"], ["lists", "mine", "data/x"]):
        result = prepare("speechocean762", *command, SPEECHOCEAN762_URL="http://127.0.0.1:9/x.tar.gz")
        assert result.returncode == 1
        assert "mine is not speechocean762: it has no train/wav.scp" in result.stderr
    assert names(tmp_path) == []


def test_speechocean_with_its_own_trials(prepare: Prepare, tmp_path: Path, shared_data: Path) -> None:
    corpus = shared_data / "speechocean762"
    assert "train has 2500 utterances of 125 speakers" in prepare("speechocean762", "get", corpus).stderr
    result = prepare("speechocean762", "lists", corpus, "data/speechocean762")
    assert result.returncode == 0, result.stderr
    for name in ("trials_O", "trials_H"):
        assert len((tmp_path / "data/speechocean762/trials" / name).read_text().splitlines()) == 28500


def test_own_tree_is_split_and_never_written_into(prepare: Prepare, tmp_path: Path) -> None:
    original_speechocean(tmp_path / "original")
    shutil.copytree(tmp_path / "original/WAVE", tmp_path / "own speech")
    before = names(tmp_path / "own speech")
    assert prepare("own", "get", "own speech").returncode == 0
    result = prepare("own", "lists", "own speech", "data/own", OWN_TEST_SHARE="0.5", OWN_MAX_TARGETS="2")
    assert result.returncode == 0, result.stderr
    assert names(tmp_path / "own speech") == before
    assert len((tmp_path / "data/own/test/spk2utt").read_text().splitlines()) == 3
    assert len((tmp_path / "data/own/trials/trials_O").read_text().splitlines()) == 4
    script = f'. "{prepare.repository}/egs/own/corpus.conf"; echo "$trials"'
    result = subprocess.run(["bash", "-euc", script], cwd=tmp_path, text=True, capture_output=True, check=True)
    assert result.stdout == "trials_O\n"


def test_pool_reads_its_sets_from_another_yaml(prepare: Prepare, tmp_path: Path) -> None:
    original_speechocean(tmp_path / "original")
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool/mine").symlink_to(tmp_path / "original/WAVE")
    before = names(tmp_path / "pool")
    missing = prepare("pool", "get", "pool")
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)
    assert "pool/pool.yaml: no such file" in missing.stderr
    (tmp_path / "some.yaml").write_text("test: {a: {folder: mine}, b: {folder: mine}}\n")
    for action in (["get", "pool"], ["lists", "pool", "data/pool"]):
        result = prepare("pool", *action, POOL_YAML="some.yaml", POOL_MAX_TARGETS="2")
        assert result.returncode == 0, result.stderr
    assert names(tmp_path / "pool") == before
    script = f'. "{prepare.repository}/egs/pool/corpus.conf"; echo $trials; echo $mean_trials; echo "$corpus_variables"'
    result = subprocess.run(["bash", "-euc", script], cwd=tmp_path, text=True, capture_output=True, check=True)
    assert result.stdout.split("\n")[:2] == ["trials_O_a trials_O_b"] * 2


def test_own_without_a_folder_prints_what_to_do(prepare: Prepare) -> None:
    result = prepare("own", "get", "nowhere")
    assert result.returncode == 1
    assert "--corpus-dir" in result.stderr
