"""Score files: scores are read back as written, and a bad line is an error."""

from pathlib import Path

import numpy as np
import pytest

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.kaldi.trials import Trials
from wespeaker_lite.scoring.scores import check_same_trials, read_scores, write_scores


def test_scores_are_read_back_exactly(tmp_path: Path) -> None:
    trials = Trials(["a-1", "b-1", "c-1"], ["a-2", "c-2", "a-1"], np.array([True, False, False]))
    scores = np.round(np.array([0.1234564, -1.5, 1e-9]), 6)
    write_scores(tmp_path / "new" / "x.score", trials, scores)
    lines = (tmp_path / "new" / "x.score").read_text().splitlines()
    assert lines == ["a-1 a-2 0.123456 target", "b-1 c-2 -1.500000 nontarget", "c-1 a-1 0.000000 nontarget"]
    again, read = read_scores(tmp_path / "new" / "x.score")
    assert (again.enroll, again.test, again.labels.tolist()) == (trials.enroll, trials.test, [True, False, False])
    np.testing.assert_array_equal(read, scores)


@pytest.mark.parametrize("line", ["a b 0.5", "a b 0.5 target x", "a b five target", "a b 0.5 impostor", ""])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "x.score"
    path.write_text(f"a b 0.5 target\n{line}\n")
    with pytest.raises(InputError, match=r"x\.score:2: expected"):
        read_scores(path)


def test_missing_and_empty_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file; run stage 6"):
        read_scores(tmp_path / "x.score")
    (tmp_path / "x.score").touch()
    with pytest.raises(InputError, match="the file is empty"):
        read_scores(tmp_path / "x.score")


def test_lists_that_differ_are_named_with_the_first_line() -> None:
    first = Trials(["a-1", "b-1"], ["a-2", "c-2"], np.array([True, False]), "one.score")
    check_same_trials(Trials(list(first.enroll), list(first.test), first.labels.copy(), "two.score"), first)
    for enroll, test, labels, fault in (
        (["a-1", "x-1"], first.test, [True, False], r"line 2 is 'x-1 c-2 nontarget' here, 'b-1 c-2 nontarget' there"),
        (first.enroll, first.test, [False, False], r"line 1 is 'a-1 a-2 nontarget' here, 'a-1 a-2 target' there"),
        (["a-1"], ["a-2"], [True], r"line 2 is 'the end' here, 'b-1 c-2 nontarget' there"),
    ):
        with pytest.raises(InputError, match=rf"two.score does not have the trials of one.score.*{fault}"):
            check_same_trials(Trials(enroll, test, np.array(labels), "two.score"), first)
