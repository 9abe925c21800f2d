"""Variants of the recipe: other training sets, models from elsewhere, runners, names."""

import json
import os
import re
import shutil
from pathlib import Path

import kaldiio
import numpy as np
import pytest
import soundfile
import yaml

from tests.end_to_end.checkout import OVERRIDES, Checkout
from wespeaker_lite.kaldi.tables import read_table, write_table

FROM_SERVER = True
RECORDER = '#!/bin/bash\nprintf \'%s\\0\' "$@" >> "$0.words"\nexec tools/run.pl "$@"\n'


def test_fine_tuning_starts_from_a_model_with_perturbed_speakers(checkout: Checkout) -> None:
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


def test_a_student_with_a_front_end_of_its_own_learns_from_embeddings(checkout: Checkout) -> None:
    (checkout.folder / "conf/device.yaml").write_text(
        "base: teacher.yaml\nfeatures: {high_freq: -400.0, snip_edges: false}\naugment: {speeds: [1.1]}\n"
        "distill: {teacher: conf/teacher.yaml, source: utterance, terms: [{name: embedding}]}\n"
    )
    options = ("--config", "conf/device.yaml", "--stage", "2")
    data = checkout.folder / "data/mini"
    before = {path: path.read_bytes() for path in (data / "test").glob("*") if path.is_file()}
    checkout.good(*options)
    assert all(path.read_bytes() == content for path, content in before.items())
    (own,) = data.glob("features_*")
    frames = [read_table(folder / "train_aug_sp1.1/utt2num_frames") for folder in (data, own)]
    assert frames[0].keys() == frames[1].keys()
    assert {int(frames[1][key]) - int(frames[0][key]) for key in frames[0]} <= {
        2,
        3,
    }  # frames of 10 ms, windows longer by 15 ms
    embeddings = read_table(checkout.folder / "exp/mini/teacher/embeddings/train_aug_sp1.1/xvector.scp")
    assert embeddings.keys() == frames[0].keys()
    assert "epoch" not in checkout.good(*options)  # all stages are finished


def test_a_teacher_that_does_not_fit_is_not_trained(checkout: Checkout) -> None:
    (checkout.folder / "conf/two_heads.yaml").write_text("base: teacher.yaml\nmodel: {heads: 2}\n")
    said = checkout.bad("--set", "distill.teacher=conf/two_heads.yaml", "--stage", "3", "--stop-stage", "3")
    assert "the student has 4 and the teacher 2: set heads: mean" in said
    assert not (checkout.folder / "exp/mini/two_heads/train.log").exists()


def test_settings_that_do_not_fit_the_data_end_before_the_teacher_is_trained(
    checkout: Checkout, tmp_path: Path
) -> None:
    (checkout.folder / "conf/late.yaml").write_text("base: teacher.yaml\n")
    late = ("--name", "early", "--set", "distill.teacher=conf/late.yaml", "--stage", "3")
    plda = ("--set", "scoring={scorings: [plda], plda: {lda_dim: 6}}")
    for options, said in (
        (("--set", "train.batch_size=25"), "train.batch_size is 25, more than the 24 crops of an epoch"),
        (("--processes", "3"), "a batch of 8 cannot be shared evenly by 3 processes"),
        (plda, "plda: LDA to 6 of 16 dimensions needs more than 6 training speakers, and there are 6"),
        (("--set", "augment.speeds=[0.8]"), "train_aug_sp0.8 has no fbanks, or stale ones: run stage 2"),
    ):
        assert said in checkout.bad(*late, *options)
    alone = ("--set", "distill.teacher=''", "--set", "distill.terms=[]", "--set", "model.heads=2")
    start = (*alone, "--set", "start_from=conf/late.yaml")
    said = checkout.bad("--name", "early", *start, "--stage", "3")
    assert "exp/mini/late/config.yaml: training cannot start from it: its model has other heads" in said
    assert not (checkout.folder / "exp/mini/late/train.log").exists()
    checkout.good(*late, *plda, "--stop-stage", "4")  # nothing is scored
    assert "done already (exp/mini/early/.check_before.stamp)" in checkout.good(*late, *plda, "--stop-stage", "4")


def test_given_embeddings_count_by_the_contents_of_their_arks(checkout: Checkout, tmp_path: Path) -> None:
    """A byte of an ark changes and its size stays: training begins anew, a finished one and one that was stopped."""
    for name in ("xvector.ark", "xvector.scp"):
        shutil.copy(checkout.folder / "exp/mini/student/embeddings/train" / name, tmp_path)
    scp, ark = tmp_path / "xvector.scp", tmp_path / "xvector.ark"
    scp.write_text(re.sub(r" .*:", f" {ark}:", scp.read_text()))
    options = [
        "--config", "conf/teacher.yaml", "--name", "given", "--stage", "4", "--stop-stage", "4",
        "--set", f"distill={{embeddings: {scp}, terms: [{{name: embedding}}]}}",
    ]  # fmt: skip
    final = checkout.folder / "exp/mini/given/final.pt"
    checkout.good(*options)
    before = final.read_bytes()
    content = bytearray(ark.read_bytes())
    content[-1] ^= 1
    ark.write_bytes(content)
    assert "are of another run (other inputs)" in checkout.good(*options)
    assert final.read_bytes() != before
    final.unlink()
    content[-1] ^= 1
    ark.write_bytes(content)
    assert "are of another run (other inputs)" in checkout.good(*options)
    assert final.read_bytes() == before
    ark.unlink()
    assert f"{ark} is not there" in checkout.bad(*options)


def test_a_trial_list_that_is_gone_is_not_passed_over(checkout: Checkout) -> None:
    trials = checkout.folder / "data/mini/trials/trials_H"
    content = trials.read_bytes()
    trials.unlink()
    said = checkout.bad("--stage", "6")
    assert "data/mini/trials/trials_H is missing or empty: run stage 1 again" in said
    checkout.good("--stage", "1", "--stop-stage", "1")
    assert trials.read_bytes() == content


def test_teachers_may_be_trained_files_and_several(checkout: Checkout, tmp_path: Path) -> None:
    stages = ("--stage", "3", "--stop-stage", "4")
    alone = ("--set", "distill.terms=[{name: label}, {name: embedding}]", "--set", "train.epochs=1")
    shutil.copytree(checkout.exp.parent / "teacher", tmp_path / "given")
    given = str(tmp_path / "given/final.pt")
    said = checkout.good(*stages, *alone, "--name", "by_file", "--set", f"distill.teacher={given}")
    assert f"the teacher of by_file is {given}" in said
    assert "done already" in checkout.good(*stages, *alone, "--name", "by_file", "--set", f"distill.teacher={given}")
    both = ("--set", "distill.teacher=''", "--set", f"distill.teachers=[conf/teacher.yaml, {given}]")
    checkout.good(*stages, *alone, *both, "--set", "distill.source=utterance", "--name", "by_two")
    folder = f"{tmp_path.name}_given"
    assert (checkout.folder / f"exp/mini/{folder}/embeddings/train/xvector.scp").exists()
    lines = (checkout.folder / "exp/mini/by_two/metrics.jsonl").read_text().splitlines()
    assert {"label", "embedding"} <= json.loads(lines[-1]).keys()
    (tmp_path / "given/final.pt").unlink()
    said = checkout.bad(*stages, *alone, "--name", "by_file", "--set", f"distill.teacher={given}")
    assert f"{given}: no such file" in said


def test_noisy_and_reverberant_copies_and_noise_in_crops(checkout: Checkout, tmp_path: Path) -> None:
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
    assert "impulse responses are simulated" in checkout.good(*options, *musan, "--stop-stage", "4")
    data = checkout.folder / "data/mini"
    utt2spk = read_table(data / "train_aug_noise-reverb_0.5/utt2spk")
    assert len(set(utt2spk.values())) == 6
    clean = read_table(data / "train/utt2spk").keys()
    copied = {kind: {key for key in utt2spk if key.endswith(f"-{kind}")} for kind in ("noise", "reverb")}
    assert [len(keys) for keys in copied.values()] == [12, 12]
    assert len({key.rpartition("-")[0] for key in copied["noise"] | copied["reverb"]}) > 12  # the two halves differ
    assert utt2spk.keys() == clean | copied["noise"] | copied["reverb"]
    assert "48 utterances of 6 speakers" in (checkout.folder / "exp/mini/noisy/train.log").read_text()
    # finished; the same with another number of jobs; made again only with other noise
    assert "fbanks of" not in checkout.good(*options, "--stop-stage", "4")
    read = lambda: dict(kaldiio.load_scp(str(data / "train_noise_0.5/feats.scp")).items())  # noqa: E731
    before = read()
    (data / "train_noise_0.5/.fbank.stamp").unlink()
    checkout.good(*options, "--stop-stage", "2", "--nj", "3")
    after = read()
    assert all((before[key] == after[key]).all() for key in before.keys() | after)
    (tmp_path / "musan/noise/hum/3.wav").touch()
    assert "hum/3.wav: empty (0 bytes)" in checkout.bad(*options, *musan)
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


def test_unlabelled_speech_trains_the_student_alone_and_is_not_scored(checkout: Checkout, tmp_path: Path) -> None:
    given, speech = checkout.folder / "data/mini/corpus", tmp_path / "speech"
    shutil.copytree(given, speech)
    shutil.move(speech / "train/sim010005", speech / "unlabelled/somebody")
    (checkout.folder / "conf/of_own.yaml").write_text(f"base: teacher.yaml\n{OVERRIDES}")
    (checkout.folder / "conf/partly.yaml").write_text(
        "base: of_own.yaml\naugment: {speeds: [0.9]}\ntrain: {unlabelled_share: 0.25}\n"
        "distill: {teacher: conf/of_own.yaml, terms: [{name: label}, {name: embedding}, {name: attention}]}\n"
        "scoring: {scorings: [cosine, asnorm, cosine_linear], top_n: 3}\n"
    )
    own = ("--corpus", "own", "--corpus-dir", str(speech), "--data-name", "partly", "--config", "conf/partly.yaml")
    said = checkout.good(*own, "--stop-stage", "6")
    assert "train: 20 utterances of 5 speakers and 4 unlabelled ones" in said
    assert "4 unlabelled utterances are not in the cohort" in said
    exp, data = checkout.folder / "exp/partly", checkout.folder / "data/partly"
    said = (exp / "partly/train.log").read_text()
    assert "40 utterances of 10 speakers and 8 unlabelled ones" in said
    said = (exp / "of_own/train.log").read_text()
    assert "4 unlabelled utterances are left out" in said
    assert "20 utterances of 5 speakers from" in said
    joined = read_table(data / "train_aug_sp0.9/spk2unlabelled")
    assert len(joined) == 8
    assert read_table(data / "train_aug_sp0.9/utt2spk").items() >= {(name, name) for name in joined}
    trials = (exp / "partly/scores/calibration.cosine.score").read_text()
    assert "unlabelled" not in trials
    assert "sim010004" in trials
    assert checkout.good(*own, "--stop-stage", "6").count("done already") >= 8
    # A speaker that becomes known is another label of the same audio.
    stamp = (exp / "of_own/.train.stamp").read_text()
    shutil.move(speech / "unlabelled/somebody", speech / "train/sim010005")
    (speech / "unlabelled").rmdir()
    checkout.good(*own, "--stop-stage", "3", "--set", "train.unlabelled_share=0.0")
    assert not (data / "train_aug_sp0.9/spk2unlabelled").exists()
    assert (exp / "of_own/.train.stamp").read_text() != stamp


@pytest.mark.parametrize("origin", ["elsewhere", "Kaldi"])
def test_a_foreign_runner_gets_words_without_special_characters(
    checkout: Checkout, tmp_path: Path, origin: str
) -> None:
    """Kaldi's run.pl passes words without spaces to bash unquoted, and words with spaces in double quotes."""
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
    assert "cannot be given 'exp/mini/a $(touch BAD)/" in checkout.bad("--cmd", str(runner), "--stage", "3", *odd)
    assert not (checkout.folder / "BAD").exists()


def test_unusual_names_work_and_pipes_can_be_forbidden(checkout: Checkout, tmp_path: Path) -> None:
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
