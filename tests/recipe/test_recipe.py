"""The whole recipe on a very small mini corpus, in a copy of the repository, as a user would run it."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile
import yaml

from tests.recipe.checkout import Checkout, make_checkout
from wespeaker_lite.data.tables import read_table, write_table


@pytest.fixture(scope="module")
def checkout(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The copy, with all stages done once."""
    copy = make_checkout(repository, tmp_path_factory.mktemp("recipe") / "checkout")
    copy.good()
    return copy


def times(folder: Path) -> dict[str, int]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path): path.stat().st_mtime_ns for path in files}


def test_all_stages_leave_what_they_should(checkout: Checkout) -> None:
    data = checkout.folder / "data/mini"
    for table in ("wav.scp", "utt2spk", "spk2utt", "feats.scp", "utt2num_frames", "utt2dur"):
        assert (data / "train" / table).exists()
    feats = kaldiio.load_scp(str(data / "test/feats.scp"))
    assert len(feats) == 24
    for name in ("config.yaml", "train.log", "metrics.jsonl", "final.pt", "results.json", "report/report.md"):
        assert (checkout.exp / name).exists(), name
    vectors = kaldiio.load_scp(str(checkout.exp / "embeddings/test/xvector.scp"))
    assert {vector.shape for vector in vectors.values()} == {(16,)}
    results = json.loads((checkout.exp / "results.json").read_text())
    figures = results["trials"]["trials_O"]
    assert set(figures) == {"cosine", "snorm", "asnorm"}
    assert all(0 <= figure["eer"] <= 1 and 0 <= figure["mindcf_p0.01"] <= 1 for figure in figures.values())
    assert results["params"] > 0
    assert results["macs_1s"] > 0
    lines = (checkout.exp / "scores/trials_O.cosine.score").read_text().splitlines()
    assert len(lines) == figures["cosine"]["trials"]
    assert len(lines[0].split()) == 4


def test_a_second_run_does_nothing(checkout: Checkout) -> None:
    before = times(checkout.folder / "data") | times(checkout.folder / "exp")
    said = checkout.good()
    after = times(checkout.folder / "data") | times(checkout.folder / "exp")
    assert before == after
    assert said.count("done already") >= 9


def test_a_changed_config_redoes_only_what_it_must(checkout: Checkout) -> None:
    before = times(checkout.folder)
    checkout.good("--set", "scoring.top_n=3", "--stage", "3")
    changed = {path for path, time in times(checkout.folder).items() if before.get(path) != time}
    names = {str(Path(path).relative_to(checkout.exp)) for path in changed if path.startswith(str(checkout.exp))}
    assert {"config.yaml", "results.json", "scores/trials_O.asnorm.score"} <= names
    assert not {name for name in names if name.startswith(("checkpoints", "embeddings", "final.pt"))}
    assert not {path for path in changed if "/exp/mini/teacher/" in path or "/data/mini/" in path}


def test_the_number_of_jobs_changes_no_embedding(checkout: Checkout) -> None:
    read = lambda: kaldiio.load_scp(str(checkout.exp / "embeddings/test/xvector.scp"))  # noqa: E731
    two = dict(read().items())
    (checkout.exp / "embeddings/test/.embed.stamp").unlink()
    checkout.good("--stage", "5", "--stop-stage", "5", "--nj", "3")
    for name, vector in read().items():
        assert abs(vector - two[name]).max() < 1e-5 * max(1, abs(vector).max())


def test_fine_tuning_starts_from_a_model_that_also_knew_perturbed_speakers(checkout: Checkout) -> None:
    (checkout.folder / "conf/perturbed.yaml").write_text("base: teacher.yaml\naugment: {speeds: [0.9, 1.1]}\n")
    (checkout.folder / "conf/tuned.yaml").write_text(
        "start_from: conf/perturbed.yaml\naugment: {speeds: []}\nhead: {margin: 0.5}\ntrain: {epochs: 1}\n"
        "distill: {teacher: conf/perturbed.yaml, terms: [{name: label}]}\n"
    )
    checkout.good("--config", "conf/tuned.yaml", "--stage", "2", "--stop-stage", "4")
    speakers = (checkout.folder / "data/mini/train_aug_sp0.9-1.1/spk2utt").read_text().splitlines()
    assert len(speakers) == 18
    said = (checkout.folder / "exp/mini/perturbed/train.log").read_text()
    assert "72 utterances of 18 speakers" in said
    said = (checkout.folder / "exp/mini/tuned/train.log").read_text()
    assert "24 utterances of 6 speakers" in said
    assert "exp/mini/perturbed/final.pt: of its 18 classes 6 are kept, 0 are new" in said
    assert "the teacher's 18 classes and the student's 6 both know 6" in said
    tuned = yaml.safe_load((checkout.folder / "exp/mini/tuned/config.yaml").read_text())
    assert tuned["train"]["epochs"] == 1
    assert tuned["crop"]["frames"] == 60
    assert tuned["head"]["margin"] == 0.5


def test_copies_with_noise_and_in_rooms_and_noise_in_crops(checkout: Checkout, tmp_path: Path) -> None:
    for number in range(3):
        noise = np.random.default_rng(number).normal(0, 0.1, 8000)
        (tmp_path / "musan/noise/hum").mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / f"musan/noise/hum/{number}.wav", noise, 16000)
    options = [
        "--config", "conf/teacher.yaml", "--name", "noisy", "--stage", "2", "--set", "augment.copies=[noise, reverb]",
        "--set", "augment.share=0.5", "--set", "crop.noise={probability: 0.4, kinds: [noise]}",
        "--set", "crop.reverb.probability=0.3",
    ]  # fmt: skip
    musan = ("--musan-dir", str(tmp_path / "musan"))
    assert "name the folder of MUSAN, or one like it, by --musan-dir" in checkout.bad(*options)
    assert "rooms are simulated" in checkout.good(*options, *musan, "--stop-stage", "4")
    data = checkout.folder / "data/mini"
    utt2spk = read_table(data / "train_aug_noise-reverb_0.5/utt2spk")
    assert len(set(utt2spk.values())) == 6
    clean = read_table(data / "train/utt2spk").keys()
    copied = {kind: {key for key in utt2spk if key.endswith(f"-{kind}")} for kind in ("noise", "reverb")}
    assert [len(keys) for keys in copied.values()] == [12, 12]
    assert len({key.rpartition("-")[0] for key in copied["noise"] | copied["reverb"]}) > 12  # not the same half
    assert utt2spk.keys() == clean | copied["noise"] | copied["reverb"]
    assert "48 utterances of 6 speakers" in (checkout.folder / "exp/mini/noisy/train.log").read_text()
    # done already, with other jobs the same, and only with other noise anew
    assert "fbanks of" not in checkout.good(*options, "--stop-stage", "4")
    read = lambda: dict(kaldiio.load_scp(str(data / "train_noise_0.5/feats.scp")).items())  # noqa: E731
    before = read()
    (data / "train_noise_0.5/.fbank.stamp").unlink()
    checkout.good(*options, "--stop-stage", "2", "--nj", "3")
    after = read()
    assert all((before[key] == after[key]).all() for key in before.keys() | after)
    (tmp_path / "musan/noise/hum/3.wav").touch()
    assert "hum/3.wav: 0 bytes" in checkout.bad(*options, *musan)
    (tmp_path / "musan/noise/hum/3.wav").unlink()
    said = checkout.bad(*options, *musan, "--set", "augment.copies=[babble]")
    assert "data/mini/musan lists no speech, only noise" in said


def test_a_trained_model_is_evaluated_elsewhere_without_training(checkout: Checkout, tmp_path: Path) -> None:
    shutil.copytree(checkout.folder / "data/mini/corpus/test", tmp_path / "speech/test")
    model = str(checkout.exp / "final.pt")
    options = ("--corpus", "own", "--corpus-dir", str(tmp_path / "speech"), "--model", model)
    said = checkout.good(*options)
    assert "own has no cohort" in said
    results = json.loads((checkout.folder / "exp/own/mini_student/results.json").read_text())
    assert set(results["trials"]["trials_O"]) == {"cosine"}
    assert not (checkout.folder / "exp/own/mini_student/final.pt").exists()
    # the same model, the same audio: the same raw embeddings
    ours = kaldiio.load_scp(str(checkout.folder / "exp/own/mini_student/embeddings/test/xvector.scp"))
    theirs = kaldiio.load_scp(str(checkout.exp / "embeddings/test/xvector.scp"))
    assert all(abs(ours[name] - theirs[name]).max() < 1e-4 for name in theirs)
    said = checkout.bad("--corpus", "own", "--corpus-dir", str(tmp_path / "speech"), "--stage", "4")
    assert "own has no training set" in said


def test_bad_options_and_configs_say_what_is_wrong(checkout: Checkout) -> None:
    for options, message in (
        (("--corpus", "nowhere"), "there are: mini own speechocean762"),
        (("--stage", "abc"), "whole number"),
        (("--stage",), "needs a value"),
        (("--stop-stage", "99"), "stages 0 to 7"),
        (("--set", "train.epoch=3"), "did you mean 'epochs'"),
        (("--set", "model.chanels=3"), "did you mean 'channels'"),
        (("--config", "conf/none.yaml"), "conf/none.yaml: no such file"),
        (("--model", "none.pt"), "no such file"),
        (("--max-bda", "3"), "nearest: --max-bad"),
        (("--stage", "5", "--stop-stage", "3"), "nothing to do"),
        (("--stage", "8"), "stages 0 to 7"),
        (("--model", "exp/mini/student/final.pt", "--set", "seed=3"), "keeps the config that it carries"),
        (("--stage", "5", "--sets", "typo"), "data/mini/typo"),
        (("positional",), "unexpected argument 'positional'"),
    ):
        assert message in checkout.bad(*options), options
    assert "Stages:" in checkout.good("--help")


def test_a_stage_before_its_inputs_exist_names_the_stage_to_run(checkout: Checkout) -> None:
    assert "run stage 4" in checkout.bad("--name", "fresh", "--stage", "5")
    assert "run stage 5" in checkout.bad("--name", "fresh", "--stage", "6")
    assert "results.json is not there: run stage 6" in checkout.bad("--name", "fresh", "--stage", "7")


def test_what_was_made_for_another_config_is_not_used(checkout: Checkout) -> None:
    said = checkout.bad("--set", "model.channels=8", "--stage", "5")
    assert "final.pt was made with another config" in said
    assert "(model): run stage 4 first" in said
    assert "run stage 2 with this config" in checkout.bad("--set", "features.low_freq=60.0", "--stage", "4")
    checkout.good("--stage", "4")


def test_a_changed_teacher_retrains_its_student(checkout: Checkout) -> None:
    before = (checkout.exp / "final.pt").read_bytes()
    said = checkout.good("--stage", "3", "--stop-stage", "4", "--teacher-set", "seed=3")
    assert "are of another run (other inputs)" in said
    assert (checkout.exp / "final.pt").read_bytes() != before


def test_replaced_audio_reaches_the_features(checkout: Checkout) -> None:
    first, second = sorted((checkout.folder / "data/mini/corpus/test").rglob("*.flac"))[:2]
    stamp = checkout.folder / "data/mini/test/.fbank.stamp"
    before, content = stamp.stat().st_mtime_ns, first.read_bytes()
    shutil.copyfile(second, first)
    checkout.good("--stage", "1", "--stop-stage", "2")
    assert stamp.stat().st_mtime_ns != before
    first.write_bytes(content)
    checkout.good("--stage", "1", "--stop-stage", "2")


def test_a_run_waits_for_another_of_the_same_experiment_and_for_who_reads_the_fbanks(checkout: Checkout) -> None:
    for folder, how, stage, changed in (
        ("exp/mini/student", "--exclusive", "7", "exp/mini/student/.report.stamp"),
        ("data/mini", "--shared", "2", "data/mini/test/.fbank.stamp"),
    ):
        (checkout.folder / changed).unlink()
        other = subprocess.Popen(
            ["flock", how, str(checkout.folder / folder / ".lock"), "sh", "-c", "echo held; exec cat"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert other.stdout.readline() == "held\n"
        run = checkout.start("--stage", stage, "--stop-stage", stage)
        said = next((line for line in run.stdout if "waiting" in line), "")
        assert f"waiting, {folder} is in use by process" in said
        other.communicate()  # it ends with its input
        assert run.wait() == 0


def test_a_missing_ark_fails_the_stage_and_names_the_log(checkout: Checkout) -> None:
    ark = next((checkout.folder / "data/mini/test/fbank").glob("*.ark"))
    aside = ark.with_suffix(".aside")
    ark.rename(aside)
    (checkout.exp / "embeddings/test/.embed.stamp").unlink()
    said = checkout.bad("--stage", "5")
    assert "stage 5 (extract_embeddings) failed" in said
    assert "log/extract." in said
    aside.rename(ark)
    checkout.good("--stage", "5")


def test_an_unreadable_utterance_fails_stage_2_unless_allowed(checkout: Checkout) -> None:
    wav = sorted((checkout.folder / "data/mini/corpus/test").rglob("*.flac"))[0]
    content = wav.read_bytes()
    wav.write_bytes(b"")
    try:
        said = checkout.bad("--stage", "1")
        assert wav.name in said
        assert "Traceback" not in said
    finally:
        wav.write_bytes(content)
    checkout.good("--stage", "1")


def test_disk_full_in_stage_2_leaves_nothing_half_made(checkout: Checkout) -> None:
    if os.geteuid() != 0:
        pytest.skip("a small tmpfs to fill needs root")
    full = checkout.folder / "data/mini/train/fbank"
    shutil.rmtree(full)
    (checkout.folder / "data/mini/train/.fbank.stamp").unlink()
    small = checkout.folder / "data/mini/train"
    kept = {path.name: path.read_bytes() for path in small.iterdir() if path.is_file()}
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(small)], check=False)
    if mounted.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        for name in ("wav.scp", "utt2spk", "spk2utt", "audio.list"):
            (small / name).write_bytes(kept[name])
        said = checkout.bad("--stage", "2", "--stop-stage", "2")
        assert "No space left on device" in said
        assert not (small / "feats.scp").exists()
        assert not list(small.rglob("*.ark"))
        assert not list(small.rglob("*.tmp"))
    finally:
        subprocess.run(["umount", str(small)], check=True)
    checkout.good("--stage", "2", "--stop-stage", "2")


RECORDER = '#!/bin/bash\nprintf \'%s\\0\' "$@" >> "$0.words"\nexec tools/run.pl "$@"\n'


@pytest.mark.parametrize("origin", ["elsewhere", "Kaldi"])
def test_a_runner_that_is_not_ours_is_given_plain_words(checkout: Checkout, tmp_path: Path, origin: str) -> None:
    """Kaldi's run.pl hands bash a word without spaces as it stands, and one with spaces in double quotes."""
    runner = tmp_path / "mine.pl"
    runner.write_text(RECORDER)
    runner.chmod(0o755)
    if origin == "Kaldi":
        if "KALDI_ROOT" not in os.environ:
            pytest.skip("the variable KALDI_ROOT names no Kaldi whose run.pl could be tried")
        runner = Path(os.environ["KALDI_ROOT"]) / "egs/wsj/s5/utils/parallel/run.pl"
    vectors = checkout.exp / "embeddings/test"
    before = dict(kaldiio.load_scp(str(vectors / "xvector.scp")).items())
    for done in (checkout.folder / "data/mini/test/.fbank.stamp", vectors / ".embed.stamp"):
        done.unlink()
    checkout.good("--cmd", f"{runner} --max-jobs-run 1", "--stage", "2", "--stop-stage", "5")
    after = kaldiio.load_scp(str(vectors / "xvector.scp"))
    assert all((after[key] == before[key]).all() for key in before)
    if origin != "Kaldi":
        words = Path(f"{runner}.words").read_text().split("\0")
        assert {f"wespeaker_lite.bin.{name}" for name in ("make_fbank", "extract")} <= set(words)
        assert all(re.fullmatch(r"[\w./:=,+@%-]*", word) for word in words)
    odd = ("--name", "a $(touch BAD)", "--set", "train.epochs=1")
    assert "cannot be given 'exp/mini/a $(touch BAD)/" in checkout.bad("--cmd", str(runner), "--stage", "4", *odd)
    assert not (checkout.folder / "BAD").exists()


def test_odd_names_are_taken_as_they_are_and_pipes_can_be_forbidden(checkout: Checkout, tmp_path: Path) -> None:
    corpus = tmp_path / 'it\'s a $(touch BAD) "folder" *'
    model = tmp_path / "it's `touch BAD`;" / "final.pt"
    wavs = read_table(checkout.folder / "data/mini/test/wav.scp")
    for folder in (corpus / "test", model.parent):
        folder.mkdir(parents=True)
    for key, path in wavs.items():
        shutil.copyfile(checkout.folder / path, corpus / f"test/$(touch BAD) {key}.flac")
    shutil.copyfile(checkout.exp / "final.pt", model)
    lines = {key: f"$(touch BAD) {key}.flac" for key in wavs}
    first = min(lines)
    lines[first] = f"cat '{checkout.folder / wavs[first]}' && touch {tmp_path}/RAN |"
    write_table(corpus / "test/wav.scp", lines)
    shutil.copyfile(checkout.folder / "data/mini/test/utt2spk", corpus / "test/utt2spk")
    own = ["--corpus", "own", "--corpus-dir", str(corpus), "--model", str(model), "--name", 'it\'s $(touch BAD) "*" ;']
    refused = f"test/wav.scp:1: '{first}' is a command, which --no-pipes forbids: "
    assert refused in checkout.bad(*own, "--no-pipes", "true")
    checkout.good(*own, "--stop-stage", "1")
    assert refused.replace("test/", "test/split/1/") in checkout.bad(*own, "--stage", "2", "--no-pipes", "true")
    assert not (tmp_path / "RAN").exists()
    checkout.good(*own, "--stage", "2")
    assert (tmp_path / "RAN").exists()
    assert (checkout.folder / 'exp/own/it\'s $(touch BAD) "*" ;/results.json').exists()
    assert not list(checkout.folder.rglob("BAD"))
    for options, message in (
        (("--name", "../x"), "--name '../x': expected the name of a folder"),
        (("--name", "-x"), "--name '-x': expected the name of a folder"),
        (("--name", "x\ny"), "expected the name of a folder"),
        (("--name", "xJOB"), "without / or = or JOB"),
        (("--corpus", "../egs/mini"), "--corpus ../egs/mini: no egs"),
        (("--set", "--overrides=/dev/null"), "unknown key '--overrides'"),
        (("--set", 'start_from="x\\nmodel\\t$(touch BAD)"'), "config.yaml: start_from: a line break"),
    ):
        assert message in checkout.bad(*options), options


def test_the_resolved_config_holds_every_key(checkout: Checkout) -> None:
    checkout.good("--stage", "7", "--set", "seed=0")
    config = yaml.safe_load((checkout.exp / "config.yaml").read_text())
    assert config["train"]["epochs"] == 2
    assert config["train"]["clip_norm"] == 5.0
    assert config["distill"]["terms"][0]["temperature"] == 4.0
