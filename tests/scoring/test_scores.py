"""Score files: what is written is read back, and a bad line is named."""

from pathlib import Path

import numpy as np
import pytest

from wespeaker_lite.data.trials import Trials
from wespeaker_lite.errors import InputError
from wespeaker_lite.scoring.scores import read_scores, write_scores


def test_scores_are_read_back_to_the_last_decimal(tmp_path: Path) -> None:
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
    with pytest.raises(InputError, match="no scores in it"):
        read_scores(tmp_path / "x.score")
