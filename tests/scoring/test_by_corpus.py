"""Means and cohorts by corpus, against plain loops in double precision."""

from pathlib import Path

import numpy as np
import pytest

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.extraction.embeddings import Cohort, Embeddings, cohort_of
from wespeaker_lite.kaldi.trials import Trials
from wespeaker_lite.recipe.scoring_config import ScoringOptions
from wespeaker_lite.scoring.backend import Backend, Training
from wespeaker_lite.scoring.by_corpus import cohort_groups, smallest_cohort
from wespeaker_lite.scoring.evaluate import score_lists
from wespeaker_lite.scoring.scores import read_scores
from wespeaker_lite.scoring.verification import read_verification

SIZES = {"big": 30, "small": 12, "tiny": 4}


def embeddings_of(names: list[str], seed: int) -> Embeddings:
    """Each corpus has an offset of its own."""
    offset = {"big": 0.0, "small": 1.0, "tiny": -1.0, "new": 2.0}
    vectors = np.random.default_rng(seed).standard_normal((len(names), 6))
    vectors += [[offset[name.split("-")[0]]] for name in names]
    return Embeddings(vectors.astype(np.float32), {name: row for row, name in enumerate(names)})


@pytest.fixture
def cohort() -> Cohort:
    members = embeddings_of([f"{corpus}-{n:02d}" for corpus, size in SIZES.items() for n in range(size)], 1)
    return Cohort(members, members.vectors.mean(axis=0))


@pytest.fixture
def embeddings() -> Embeddings:
    return embeddings_of([f"{corpus}-x{n}" for corpus in ("small", "tiny", "big", "new") for n in range(4)], 2)


def trials_of(embeddings: Embeddings) -> Trials:
    names = list(embeddings.index)
    pairs = [(one, two) for one in names for two in names if one < two and one.split("-")[0] == two.split("-")[0]]
    return Trials([one for one, _ in pairs], [two for _, two in pairs], np.arange(len(pairs)) % 2 == 0)


def corpus(name: str) -> str:
    return name.split("-")[0]


def plain(embeddings: Embeddings, cohort: Cohort, trials: Trials, mean: str, by: str, top_n: int) -> list[float]:
    """AS-norm with the mean and the cohort of each utterance's own corpus (of ten members and more), or balanced."""
    vectors = {name: cohort.embeddings.vectors[row].astype(np.float64) for name, row in cohort.embeddings.index.items()}
    of = {one: [name for name in vectors if corpus(name) == one] for one in SIZES}
    means = {one: np.mean([vectors[name] for name in names], axis=0) for one, names in of.items()}
    middle = np.mean(list(means.values()), axis=0) if mean != "all" else cohort.mean.astype(np.float64)
    drawn = {list(vectors)[row] for row in cohort_groups(list(embeddings.index), cohort, "balanced")[0][1]}

    def unit(name: str, vector: np.ndarray) -> np.ndarray:
        own = mean == "corpus" and len(of.get(corpus(name), ())) >= 10
        less = vector - (means[corpus(name)] if own else middle)
        return less / np.linalg.norm(less)

    def statistics(name: str, vector: np.ndarray) -> tuple[float, float]:
        members = list(vectors)
        if by == "corpus" and len(of.get(corpus(name), ())) >= 10:
            members = of[corpus(name)]
        if by == "balanced":
            members = [member for member in members if member in drawn]
        near = sorted(float(vector @ unit(member, vectors[member])) for member in members)[-top_n:]
        return float(np.mean(near)), float(np.std(near))

    scores = []
    for pair in zip(trials.enroll, trials.test, strict=True):
        sides = [unit(name, embeddings.vectors[embeddings.index[name]].astype(np.float64)) for name in pair]
        raw = float(sides[0] @ sides[1])
        both = [statistics(name, side) for name, side in zip(pair, sides, strict=True)]
        scores.append(float(np.mean([(raw - middle) / spread for middle, spread in both])))
    return scores


@pytest.mark.parametrize("mean", ["all", "balanced", "corpus"])
@pytest.mark.parametrize("by", ["all", "balanced", "corpus"])
def test_asnorm_equals_the_plain_loop(
    tmp_path: Path, embeddings: Embeddings, cohort: Cohort, mean: str, by: str
) -> None:
    trials = trials_of(embeddings)
    options = ScoringOptions(("cosine", "asnorm"), top_n=8, mean=mean, cohort=by)
    score_lists(embeddings, cohort, {"list": trials}, options, tmp_path)
    _, scores = read_scores(tmp_path / "scores/list.asnorm.score")
    np.testing.assert_allclose(scores, plain(embeddings, cohort, trials, mean, by, 8), atol=1e-4)
    kept = read_verification(tmp_path / "final.pt")
    assert set(kept.thresholds) == (set() if mean == "corpus" else {"list"})
    assert np.allclose(kept.mean, cohort.mean) == (mean == "all")


def test_a_balanced_cohort_has_as_many_of_each_corpus(embeddings: Embeddings, cohort: Cohort) -> None:
    ((rows, members),) = cohort_groups(list(embeddings.index), cohort, "balanced")
    assert rows.tolist() == list(range(16))
    names = [list(cohort.embeddings.index)[row] for row in members]
    assert [sum(corpus(name) == one for name in names) for one in SIZES] == [4, 4, 4]
    assert [smallest_cohort(cohort.embeddings.index, by) for by in ("all", "balanced", "corpus")] == [46, 12, 12]


def test_a_training_speaker_is_removed_from_its_own_cohort(cohort: Cohort) -> None:
    """Calibration's trials are of training speakers; a balanced cohort has some of them."""
    names = [f"{name}-{take}" for name in cohort.embeddings.index for take in "ab"]
    utterances = embeddings_of(names, 3)
    utt2spk = {name: name.rpartition("-")[0] for name in names}
    trained = cohort_of(zip(names, utterances.vectors, strict=True), utt2spk)
    own = np.array([trained.embeddings.index[utt2spk[name]] for name in names])
    backend = Backend(ScoringOptions(("asnorm",), top_n=100, cohort="balanced"), trained, Training(utterances, utt2spk))
    found = backend.prepare(utterances, own).statistics["asnorm"]
    unit, impostors = (one.unit(trained.mean).vectors for one in (utterances, trained.embeddings))
    ((_, members),) = cohort_groups(names, trained, "balanced")
    for row in range(len(names)):
        others = [member for member in members if member != own[row]]
        assert found.mean[row] == pytest.approx((impostors[others] @ unit[row]).mean(), abs=1e-5)


def test_ids_without_a_corpus_are_refused(tmp_path: Path) -> None:
    plain = Embeddings(np.eye(4, dtype=np.float32), {name: row for row, name in enumerate("abcd")})
    trials = Trials(["a", "a"], ["b", "c"], np.array([True, False]))
    with pytest.raises(InputError, match="'a' does not begin with a corpus"):
        score_lists(plain, Cohort(plain, np.zeros(4, np.float32)), {"list": trials},
                    ScoringOptions(("asnorm",), cohort="corpus"), tmp_path)  # fmt: skip
