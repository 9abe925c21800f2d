"""Later stages compare the given corpus with the one that the data were made from. Only lists are made here."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.end_to_end.checkout import Checkout, make_checkout

OWN = ("--config", "conf/teacher.yaml", "--corpus", "own")
LISTS = (*OWN, "--stop-stage", "1")


@pytest.fixture(scope="module")
def checkout(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A copy of the repository, and two corpora without common speakers beside it. data/own is made from X."""
    copy = make_checkout(repository, tmp_path_factory.mktemp("made_from") / "checkout")
    for name in "XY":
        for number in range(4):
            for utterance in range(2):
                path = copy.folder.parent / f"{name}/test/{name}{number}/{utterance}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                soundfile.write(path, np.full(8000, number + utterance + 1, dtype=np.int16), 16000)
    copy.good(*LISTS, "--corpus-dir", "../X")
    return copy


def test_what_an_unfinished_corpus_lacks_is_named(checkout: Checkout) -> None:
    folder = checkout.folder / "egs/half"
    folder.mkdir()
    said = checkout.bad("--corpus", "half")
    assert "no egs/half/corpus.conf; there are: " in said
    assert "half" not in said.split("there are: ")[1].splitlines()[0]
    (folder / "corpus.conf").write_text("default_config=conf/student.yaml train_set=train test_set=test\n")
    assert "egs/half/corpus.conf does not set cohort_set" in checkout.bad("--corpus", "half")
    shutil.rmtree(folder)


def speakers(checkout: Checkout, place: str) -> set[str]:
    return {line.split()[1] for line in (checkout.folder / f"data/{place}/test/utt2spk").open()}


@pytest.mark.parametrize("stage", ["1", "2", "4", "6"])
def test_another_corpus_than_that_of_the_data_is_an_error(checkout: Checkout, stage: str) -> None:
    x, y = (checkout.folder.parent / name for name in "XY")
    said = checkout.bad(*OWN, "--corpus-dir", "../Y", "--stage", stage)
    assert f"--corpus-dir {y}, but data/own was made from --corpus-dir {x}" in said
    assert "--data-name" in said


def test_another_variable_than_that_of_the_data_is_an_error(checkout: Checkout) -> None:
    said = checkout.bad(*OWN, "--stage", "5", OWN_SEED="7")
    assert "OWN_SEED=7, but data/own was made from OWN_SEED=1" in said
    assert "--sets applies to stage 5" in checkout.bad(*OWN, "--stage", "6", "--sets", "test")


@pytest.mark.parametrize("given", [(), ("--corpus-dir", "../X"), ("--corpus-dir", "../X/../X")])
def test_options_that_are_missing_or_equal_are_taken_from_the_record(
    checkout: Checkout, given: tuple[str, ...]
) -> None:
    assert "done already (data/own/.lists.stamp)" in checkout.good(*LISTS, "--stage", "1", *given)
    assert speakers(checkout, "own") == {"X0", "X1", "X2", "X3"}


def test_incomplete_data_are_not_used_and_stage_1_makes_them_again(checkout: Checkout) -> None:
    """The data are as after an interrupted stage 1."""
    (checkout.folder / "data/own/made_from").unlink()
    assert "data/own is not finished: run stage 1 first" in checkout.bad(*OWN, "--stage", "4")
    checkout.good(*LISTS, "--stage", "1")
    assert (checkout.folder / "data/own/made_from").exists()


def test_data_name_keeps_two_corpora(checkout: Checkout) -> None:
    assert "--data-name y needs --corpus-dir" in checkout.bad(*LISTS, "--data-name", "y")
    assert "no name of another corpus" in checkout.bad(*LISTS, "--data-name", "mini")
    checkout.good(*LISTS, "--corpus-dir", "../Y", "--data-name", "y")
    assert speakers(checkout, "y") == {"Y0", "Y1", "Y2", "Y3"}
    assert speakers(checkout, "own") == {"X0", "X1", "X2", "X3"}
    assert "done already" in checkout.good(*LISTS, "--data-name", "y", "--stage", "1")
    shutil.rmtree(checkout.folder / "data/y")


def test_stage_0_accepts_another_corpus(checkout: Checkout) -> None:
    checkout.good(*LISTS, "--corpus-dir", "../Y", "--stop-stage", "0")
    assert "but data/own was made from" in checkout.bad(*OWN, "--corpus-dir", "../Y", "--stage", "2")
    checkout.good(*LISTS, "--corpus-dir", "../Y")
    assert speakers(checkout, "own") == {"Y0", "Y1", "Y2", "Y3"}


# An experiment with the teacher exp/teacher. `leave` is the end of stage 3, and `check` the start of stage 4.
ASKED_FOR = """\
set -euo pipefail
stage=0 data=data exp=exp/student name=student teacher_set=()
die() { echo "$*"; exit 1; }
setting() { case $1 in start_from) echo "" ;; esac; }
starting_model() { setting start_from; }
find_teachers() { teachers=(conf/teacher.yaml); }
is_conf() { [[ $1 == *.yaml ]]; }
teacher_folder() { echo exp/teacher; }
. "$1/local/made_from.sh"
leave() { write_asked_for; }
check() { check_teacher_set && check_asked_for; }
teacher_set=("${@:3}")
"$2"
"""


def test_a_teacher_that_another_run_has_trained_again_is_an_error(repository: Path, tmp_path: Path) -> None:
    def call(*words: str) -> str:
        command = ["bash", "-c", ASKED_FOR, "stage.sh", str(repository), *words]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout

    stamp = tmp_path / "exp/teacher/.train.stamp"
    stamp.parent.mkdir(parents=True)
    stamp.write_text("seed 3")
    assert call("check").startswith("exp/teacher: run stage 3 first")
    assert call("leave", "seed=3", "train.epochs=2") == ""
    kept = tmp_path / "exp/student/asked_for/teacher_set"
    before = kept.stat().st_mtime_ns
    assert call("leave", "seed=3", "train.epochs=2") == ""
    assert kept.stat().st_mtime_ns == before
    assert call("check") == ""
    assert call("check", "seed=3", "train.epochs=2") == ""
    assert "--teacher-set seed=4, but stage 3 of student was given 'seed=3 train.epochs=2'" in call("check", "seed=4")
    stamp.write_text("seed 4")
    assert "exp/teacher is not what stage 3 of student has trained: another run" in call("check")


def test_teachers_that_cannot_be_found_end_the_stage(repository: Path, tmp_path: Path) -> None:
    script = ASKED_FOR.replace("find_teachers() { teachers=(conf/teacher.yaml); }", "find_teachers() { false; }")
    for word in ("leave", "check"):
        command = ["bash", "-c", script, "stage.sh", str(repository), word]
        assert subprocess.run(command, cwd=tmp_path, check=False).returncode != 0
    assert not (tmp_path / "exp/student/asked_for").exists()
