"""The whole recipe on a very small mini corpus, in a copy of the repository, as a user runs it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import kaldiio
import pytest
import yaml

from tests.end_to_end.checkout import Checkout
from wespeaker_lite.kaldi.tables import read_table


def times(folder: Path) -> dict[str, int]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".seen" and path.name != ".lock")
    return {str(path): path.stat().st_mtime_ns for path in files}


def test_all_stages_write_their_outputs(checkout: Checkout) -> None:
    data = checkout.folder / "data/mini"
    for table in ("wav.scp", "utt2spk", "spk2utt", "feats.scp", "utt2num_frames", "utt2dur"):
        assert (data / "train" / table).exists()
    feats = kaldiio.load_scp(str(data / "test/feats.scp"))
    assert len(feats) == 24
    for name in ("config.yaml", "train.log", "metrics.jsonl", "final.pt", "results.json", "report/report.html"):
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
    shown = json.loads((checkout.exp / "report/attention.json").read_text())
    # The teacher has the student's config without KD, so it is also the student without KD, and is shown once.
    assert shown["teacher"] == "teacher"
    assert {name: len(stages) for name, stages in shown["kl"].items()} == {"student": 2}
    assert (checkout.exp / "report/attention.png").stat().st_size > 10_000


def test_a_second_run_does_nothing(checkout: Checkout) -> None:
    before = times(checkout.folder / "data") | times(checkout.folder / "exp")
    said = checkout.good()
    after = times(checkout.folder / "data") | times(checkout.folder / "exp")
    assert before == after
    assert said.count("done already") >= 9


def test_audio_with_a_new_time_repeats_only_the_fbanks(checkout: Checkout) -> None:
    for path in (checkout.folder / "data/mini/corpus/train").rglob("*.flac"):
        os.utime(path)
    said = checkout.good("--nj", "3")
    assert "fbanks of train by 3 jobs" in said
    assert said.count(" jobs, logs in ") == 1
    for stamp in ("teacher/.train", "student/.train", "student/embeddings/train/.embed", "student/.score"):
        assert f"done already (exp/mini/{stamp}.stamp)" in said


def test_a_changed_config_repeats_only_dependent_stages(checkout: Checkout) -> None:
    before = times(checkout.folder)
    checkout.good("--set", "scoring.top_n=3", "--stage", "3")
    changed = {path for path, time in times(checkout.folder).items() if before.get(path) != time}
    names = {str(Path(path).relative_to(checkout.exp)) for path in changed if path.startswith(str(checkout.exp))}
    assert {"config.yaml", "results.json", "scores/trials_O.asnorm.score"} <= names
    assert not {name for name in names if name.startswith(("checkpoints", "embeddings", "final.pt"))}
    assert not {path for path in changed if "/exp/mini/teacher/" in path or "/data/mini/" in path}


def test_the_number_of_jobs_does_not_change_embeddings(checkout: Checkout) -> None:
    read = lambda: kaldiio.load_scp(str(checkout.exp / "embeddings/test/xvector.scp"))  # noqa: E731
    two = dict(read().items())
    (checkout.exp / "embeddings/test/.embed.stamp").unlink()
    checkout.good("--stage", "5", "--stop-stage", "5", "--nj", "3")
    for name, vector in read().items():
        assert abs(vector - two[name]).max() < 1e-5 * max(1, abs(vector).max())


def test_bad_options_and_configs_are_errors(checkout: Checkout) -> None:
    for options, message in (
        (("--corpus", "nowhere"), " mini own pool speechocean762"),
        (("--stage", "abc"), "whole number"),
        (("--stage",), "needs a value"),
        (("--stop-stage", "99"), "stages 0 to 8"),
        (("--set", "train.epoch=3"), "did you mean 'epochs'"),
        (("--set", "model.chanels=3"), "did you mean 'channels'"),
        (("--config", "conf/none.yaml"), "conf/none.yaml: no such file"),
        (("--model", "none.pt"), "no such file"),
        (("--max-bda", "3"), "nearest: --max-bad"),
        (("--stage", "5", "--stop-stage", "3"), "nothing to do"),
        (("--stage", "9"), "stages 0 to 8"),
        (("--model", "exp/mini/student/final.pt", "--set", "seed=3"), "--set changes training only"),
        (("--stage", "5", "--sets", "typo"), "data/mini/typo"),
        (("positional",), "unexpected argument 'positional'"),
    ):
        assert message in checkout.bad(*options), options
    assert "Stages:" in checkout.good("--help")


def test_the_export_is_made_and_used(checkout: Checkout) -> None:
    pytest.importorskip("onnxruntime", reason="needs tools/install.sh --extras export")
    results = json.loads((checkout.exp / "results.json").read_text())
    eer = results["trials"]["trials_O"]["cosine"]["eer"]
    assert re.search(rf"trials_O \| +cosine \| +{100 * eer:.2f}", (checkout.exp / "export/card.md").read_text())
    one, two = sorted((checkout.folder / "data/mini/corpus/test").rglob("*.flac"))[:2]
    scores = []
    for model in ("final.pt", "export/model.onnx"):
        command = [sys.executable, "-m", "wespeaker_lite.bin.verify", "--json", "--model", str(checkout.exp / model)]
        done = subprocess.run([*command, str(one), str(two)], capture_output=True, text=True, check=True)
        scores.append(json.loads(done.stdout))
    assert scores[1]["score"] == pytest.approx(scores[0]["score"], abs=1e-4)
    assert scores[1]["threshold_name"] == scores[0]["threshold_name"] == "EER point of trials_O"


def test_without_its_packages_only_a_separate_export_fails(checkout: Checkout) -> None:
    requirements = checkout.folder / "requirements-export.txt"
    before = requirements.read_text()
    requirements.write_text("no-such-package==1\n")
    try:
        extras = {"WESPEAKER_LITE_EXTRAS": "plots test"}
        message = "no-such-package==1: not installed; install it: tools/install.sh --extras export"
        assert f"skipped: {message}" in checkout.good("--stage", "6", **extras)
        assert f"export.sh: {message}" in checkout.bad("--stage", "8", **extras)
    finally:
        requirements.write_text(before)


def test_a_network_without_a_graph_is_not_exported_unless_it_is_asked_for(checkout: Checkout) -> None:
    pytest.importorskip("onnxruntime", reason="needs tools/install.sh --extras export")
    graph = checkout.folder / "wespeaker_lite/deploy/graphs/bc_cmt.py"
    graph.rename(graph.with_suffix(".away"))
    try:
        message = "the network has no graph for ONNX files: write wespeaker_lite/deploy/graphs/bc_cmt.py"
        assert f"skipped: {message}" in checkout.good("--stage", "7")
        (checkout.exp / "export/model.onnx").unlink()
        assert f"export.sh: {message}" in checkout.bad("--stage", "8")
    finally:
        graph.with_suffix(".away").rename(graph)
    checkout.good("--stage", "8")


def test_a_stage_before_its_inputs_exist_names_the_stage_to_run(checkout: Checkout) -> None:
    assert "run stage 4" in checkout.bad("--name", "fresh", "--stage", "5")
    assert "run stage 5" in checkout.bad("--name", "fresh", "--stage", "6")
    assert "results.json is missing: run stage 6" in checkout.bad("--name", "fresh", "--stage", "7")


def test_files_of_another_config_are_not_used(checkout: Checkout) -> None:
    said = checkout.bad("--set", "model.heads=2", "--stage", "5")
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


def test_a_run_waits_for_runs_of_the_same_experiment_and_readers_of_the_fbanks(checkout: Checkout) -> None:
    checkout.good("--stage", "5")  # a stage that runs alone needs earlier stages to be current
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
        other.communicate()  # it ends when its standard input is closed
        assert run.wait() == 0


def test_a_missing_ark_fails_the_stage_and_is_named(checkout: Checkout) -> None:
    ark = next((checkout.folder / "data/mini/test/fbank").glob("*.ark"))
    aside = ark.with_suffix(".aside")
    ark.rename(aside)
    (checkout.exp / "embeddings/test/.embed.stamp").unlink()
    said = checkout.bad("--stage", "5")
    assert "stage 5 (extract_embeddings) failed" in said
    assert f"{ark.relative_to(checkout.folder)} is missing or empty: run stage 2 again" in said
    aside.rename(ark)
    checkout.good("--stage", "5")


def test_an_unreadable_utterance_fails_stage_2_unless_allowed(checkout: Checkout) -> None:
    wav = sorted((checkout.folder / "data/mini/corpus/test").rglob("*.flac"))[0]
    content, times = wav.read_bytes(), wav.stat()
    feats = checkout.folder / "data/mini/test/feats.scp"
    before = read_table(feats).keys()
    wav.write_bytes(b"no audio")
    try:
        said = checkout.bad("--stage", "1")
        assert "stage 2 (make_fbanks) failed" in said
        assert wav.name in said
        checkout.good("--stage", "2", "--stop-stage", "2", "--max-bad", "1")
        assert len(before - read_table(feats).keys()) == 1
    finally:
        wav.write_bytes(content)
        os.utime(wav, ns=(times.st_atime_ns, times.st_mtime_ns))
    checkout.good("--stage", "1", "--stop-stage", "2")
    assert read_table(feats).keys() == before


def test_a_full_disk_in_stage_2_leaves_no_partial_file(checkout: Checkout) -> None:
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
        for name in ("wav.scp", "utt2spk", "spk2utt", "spk2gender", "audio.list"):
            (small / name).write_bytes(kept[name])
        said = checkout.bad("--stage", "2", "--stop-stage", "2")
        assert "No space left on device" in said
        assert not (small / "feats.scp").exists()
        assert not list(small.rglob("*.ark"))
        assert not list(small.rglob("*.tmp"))
    finally:
        subprocess.run(["umount", str(small)], check=True)
    checkout.good("--stage", "2", "--stop-stage", "2")


def test_the_resolved_config_has_every_key(checkout: Checkout) -> None:
    checkout.good("--stage", "7", "--set", "seed=0")
    config = yaml.safe_load((checkout.exp / "config.yaml").read_text())
    assert config["train"]["epochs"] == 2
    assert config["train"]["clip_norm"] == 5.0
    assert config["distill"]["terms"][0]["temperature"] == 4.0
