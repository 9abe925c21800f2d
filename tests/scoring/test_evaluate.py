"""Whole scorings of small sets: files, figures, and what is refused before anything is written."""

from pathlib import Path

import numpy as np
import pytest

from wespeaker_lite.data.trials import Trials
from wespeaker_lite.errors import InputError
from wespeaker_lite.scoring.embeddings import Cohort, Embeddings
from wespeaker_lite.scoring.evaluate import ScoringOptions, read_trial_lists, score_lists
from wespeaker_lite.scoring.results import summarise
from wespeaker_lite.scoring.scores import read_scores

SIZE = 6


def embeddings_of(names: list[str], rng: np.random.Generator) -> Embeddings:
    return Embeddings(
        rng.standard_normal((len(names), SIZE)).astype(np.float32), {name: row for row, name in enumerate(names)}
    )


@pytest.fixture
def embeddings() -> Embeddings:
    return embeddings_of([f"s{number}-{take}" for number in range(8) for take in "ab"], np.random.default_rng(0))


@pytest.fixture
def cohort() -> Cohort:
    impostors = embeddings_of([f"c{number}" for number in range(20)], np.random.default_rng(1))
    return Cohort(impostors, np.full(SIZE, 0.25, np.float32))


@pytest.fixture
def trials() -> Trials:
    pairs = [(f"s{one}-a", f"s{two}-b") for one in range(8) for two in range(8)]
    return Trials([one for one, _ in pairs], [two for _, two in pairs], np.array([a[:2] == b[:2] for a, b in pairs]))


def plain_score(embeddings: Embeddings, cohort: Cohort | None, pair: tuple[str, str], top_n: int | None) -> float:
    mean = cohort.mean.astype(np.float64) if cohort else 0.0

    def unit(vector: np.ndarray) -> np.ndarray:
        return (vector - mean) / np.linalg.norm(vector - mean)

    x, y = (unit(embeddings.vectors[embeddings.index[name]].astype(np.float64)) for name in pair)
    if top_n is None:
        return float(x @ y)
    near = [sorted(float(side @ unit(other)) for other in cohort.embeddings.vectors)[-top_n:] for side in (x, y)]
    return float(np.mean([(x @ y - np.mean(scores)) / np.std(scores) for scores in near]))


def test_scores_and_figures_of_all_scorings(
    tmp_path: Path, embeddings: Embeddings, cohort: Cohort, trials: Trials
) -> None:
    results = score_lists(embeddings, cohort, {"list": trials}, ScoringOptions(top_n=5), tmp_path)
    for scoring, top_n in (("cosine", None), ("snorm", 20), ("asnorm", 5)):
        read, scores = read_scores(tmp_path / "scores" / f"list.{scoring}.score")
        assert (read.enroll, read.test) == (trials.enroll, trials.test)
        pairs = zip(trials.enroll, trials.test, strict=True)
        wanted = [plain_score(embeddings, cohort, pair, top_n) for pair in pairs]
        np.testing.assert_allclose(scores, wanted, atol=2e-5)
        assert results["list"][scoring] == summarise(read, scores, "")  # figures fit the file, rounding and all
        assert results["list"][scoring].items() >= {"trials": 64, "targets": 8, "nontargets": 56}.items()


def test_scores_that_differ_behind_the_decimals_of_the_file_are_ties(tmp_path: Path) -> None:
    """What a reader measures from the score file is what results.json says."""
    embeddings = Embeddings(np.array([[1, 0], [2e-8, 1], [1e-8, 1]], np.float32), {"e": 0, "t": 1, "n": 2})
    trials = Trials(["e", "e"], ["t", "n"], np.array([True, False]))
    results = score_lists(embeddings, None, {"list": trials}, ScoringOptions(("cosine",)), tmp_path)
    assert results["list"]["cosine"]["eer"] == 0.5


def test_without_a_cohort_nothing_is_subtracted(tmp_path: Path, embeddings: Embeddings, trials: Trials) -> None:
    score_lists(embeddings, None, {"list": trials}, ScoringOptions(("cosine",)), tmp_path)
    _, scores = read_scores(tmp_path / "scores" / "list.cosine.score")
    wanted = [plain_score(embeddings, None, pair, None) for pair in zip(trials.enroll, trials.test, strict=True)]
    np.testing.assert_allclose(scores, wanted, atol=2e-6)


def test_only_utterances_of_trials_must_be_sound(
    tmp_path: Path, embeddings: Embeddings, cohort: Cohort, trials: Trials
) -> None:
    embeddings.vectors[embeddings.index["s3-a"]] = np.nan
    keep = [row for row, name in enumerate(trials.enroll) if name != "s3-a"]
    some = Trials([trials.enroll[row] for row in keep], [trials.test[row] for row in keep], trials.labels[keep])
    score_lists(embeddings, cohort, {"list": some}, ScoringOptions(top_n=5), tmp_path)
    with pytest.raises(InputError, match="'s3-a' is not finite"):
        score_lists(embeddings, cohort, {"list": trials}, ScoringOptions(top_n=5), tmp_path)


def test_normalisation_wants_a_cohort(tmp_path: Path, embeddings: Embeddings, trials: Trials) -> None:
    with pytest.raises(InputError, match="snorm compares with a cohort"):
        score_lists(embeddings, None, {"list": trials}, ScoringOptions(), tmp_path)
    assert not (tmp_path / "scores").exists()


def test_one_class_is_named_with_its_list(tmp_path: Path, embeddings: Embeddings) -> None:
    trials = Trials(["s0-a"], ["s0-b"], np.array([True]))
    with pytest.raises(InputError, match="odd cosine: none of the 1 trials is a nontarget"):
        score_lists(embeddings, None, {"odd": trials}, ScoringOptions(("cosine",)), tmp_path)


def test_options_are_checked() -> None:
    with pytest.raises(InputError, match="unknown scoring 'asnrom'; did you mean 'asnorm'"):
        ScoringOptions(("cosine", "asnrom"))
    with pytest.raises(InputError, match="no scoring"):
        ScoringOptions(())
    with pytest.raises(InputError, match="--block-mb 0"):
        ScoringOptions(block_mb=0)


def test_two_lists_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "trials").write_text("a b target\n")
    with pytest.raises(InputError, match="another list is called 'trials' too"):
        read_trial_lists([tmp_path / "one" / "trials", tmp_path / "two" / "trials"])
