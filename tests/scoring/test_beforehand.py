"""Scoring that does not fit trials, speakers or cohort ends a run before anything is trained."""

import logging
from pathlib import Path

import pytest
import yaml

from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.kaldi.tables import write_table
from wespeaker_lite.recipe.experiment import from_given
from wespeaker_lite.scoring.beforehand import Plan, check_scoring

MODEL = {"name": "xvector", "embed_dim": 16}
GOOD = "t0-0 t0-1 target\nt0-0 t1-0 nontarget\n"


def checked(
    tmp_path: Path, scoring: dict, trials: str = GOOD, speakers: int = 4, utterances: int = 6, cohort: bool = True
) -> None:
    """Check a section `scoring` with a cohort of so many speakers and utterances of each, and a test set of two."""
    for name, count, first in (("train", speakers, "a"), ("test", 2, "t")):
        names = [f"{first}{speaker}" for speaker in range(count)]
        utt2spk = {f"{speaker}-{number}": speaker for speaker in names for number in range(utterances)}
        (tmp_path / name).mkdir(exist_ok=True)
        write_table(tmp_path / name / "utt2spk", utt2spk)
    (tmp_path / "trials_O").write_text(trials)
    experiment = from_given({"model": MODEL, "scoring": scoring}, "c.yaml")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(to_mapping(experiment)))
    lists = [str(tmp_path / "trials_O")]
    check_scoring(tmp_path / "config.yaml", Plan(tmp_path / "test", lists, tmp_path / "train" if cohort else None))


@pytest.mark.parametrize(
    ("trials", "said"),
    [
        (GOOD + "t0-0 t9-0 nontarget\n", r"trials_O:3: utterance 't9-0' is not in the data .*test/utt2spk does not"),
        ("t0-0 t0-1 target\n", "trials_O: none of the 1 trials is a nontarget trial"),
        ("t0-0 t1-0 nontarget\n", "trials_O: none of the 1 trials is a target trial"),
        (GOOD + "t1-0 t1-1 nontarget\n", "trial t1-0 t1-1: it is labelled nontarget, which utt2spk contradicts"),
        (GOOD + "t0-0 t1-0 target\n", "lines 2 and 3 contradict each other"),
    ],
)
def test_trial_lists_are_compared_with_the_test_set(tmp_path: Path, trials: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        checked(tmp_path, {}, trials, cohort=False)


def test_trials_of_what_was_left_out_are_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    (tmp_path / "test/left_out").write_text("t9-0 cut\n")
    with pytest.raises(InputError, match="test/left_out has those that stage 2 left out: take their trials out"):
        checked(tmp_path, {}, GOOD + "t0-0 t9-0 nontarget\n")


@pytest.mark.parametrize(
    ("scorings", "speakers", "said"),
    [
        (["cosine"], 1, None),
        (["cosine", "snorm"], 1, "snorm needs a cohort of 2 speakers, and .*train has 1"),
        (["asnorm"], 1, "asnorm needs a cohort of 2 speakers"),
        (["asnorm"], 2, None),
        (["asnorm", "cosine_linear"], 2, "asnorm needs a cohort of 3 speakers"),
        (["cosine_qmf"], 2, "cosine_qmf needs a cohort of 3 speakers"),
        (["cosine_qmf"], 3, None),
        (["cosine_linear"], 1, "calibration: among the training set's utterances, no nontarget trial"),
    ],
)
def test_a_cohort_has_speakers_enough(tmp_path: Path, scorings: list[str], speakers: int, said: str | None) -> None:
    if said is None:
        checked(tmp_path, {"scorings": scorings}, speakers=speakers)
    else:
        with pytest.raises(InputError, match=said):
            checked(tmp_path, {"scorings": scorings}, speakers=speakers)


def test_a_cohort_smaller_than_top_n_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        checked(tmp_path, {"scorings": ["asnorm"], "top_n": 4})
        assert not caplog.text
        checked(tmp_path, {"scorings": ["asnorm"], "top_n": 5})
    assert "scoring.top_n is 5, and the cohort" in caplog.text


@pytest.mark.parametrize(
    ("plda", "sizes", "said"),
    [
        ({}, (4, 8), None),
        ({"lda_dim": 4}, (4, 8), "LDA to 4 of 16 dimensions needs more than 4 training speakers, and there are 4"),
        ({"lda_dim": 3}, (4, 8), None),
        ({}, (4, 4), "16 training utterances of 4 speakers are too few for embeddings of 16"),
        ({}, (1, 30), "needs more than 0 training speakers"),
    ],
)
def test_plda_has_speakers_and_utterances_enough(
    tmp_path: Path, plda: dict, sizes: tuple[int, int], said: str | None
) -> None:
    section = {"scorings": ["plda"], "plda": plda}
    if said is None:
        checked(tmp_path, section, speakers=sizes[0], utterances=sizes[1])
    else:
        with pytest.raises(InputError, match=said):
            checked(tmp_path, section, speakers=sizes[0], utterances=sizes[1])


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("a0-0 a0-1 target\na0-0 a1-0 nontarget\n", None),
        ("a0-0 a0-1 target\na0-0 t1-0 nontarget\n", "list:2: utterance 't1-0' is not in the data .*train/utt2spk"),
        ("a0-0 a0-1 target\n", "calibration: none of the 1 trials is a nontarget trial"),
    ],
)
def test_a_calibration_list_names_training_utterances(tmp_path: Path, lines: str, said: str | None) -> None:
    (tmp_path / "list").write_text(lines)
    section = {"scorings": ["cosine_linear"], "calibration": {"list": str(tmp_path / "list")}}
    if said is None:
        checked(tmp_path, section)
    else:
        with pytest.raises(InputError, match=said):
            checked(tmp_path, section)


@pytest.mark.parametrize("section", [{"mean": "corpus"}, {"cohort": "corpus"}, {"cohort": "balanced"}])
def test_means_and_cohorts_by_corpus_need_ids_that_name_one(tmp_path: Path, section: dict) -> None:
    with pytest.raises(InputError, match=r"'a[0-9]' does not begin with a corpus"):
        checked(tmp_path, {"scorings": ["snorm"], **section})
