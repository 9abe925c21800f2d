"""Complete scorings of small sets: files, metrics, calibrations, and errors before any file is written."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.extraction.embeddings import Cohort, Embeddings
from wespeaker_lite.kaldi.arks import ArkWriter
from wespeaker_lite.kaldi.tables import write_table
from wespeaker_lite.kaldi.trials import Trials
from wespeaker_lite.recipe.scoring_config import CalibrationOptions, PldaOptions, ScoringOptions
from wespeaker_lite.scoring.backend import Training, read_options
from wespeaker_lite.scoring.calibration import draw_calibration_trials, train_calibration
from wespeaker_lite.scoring.evaluate import read_training, read_trial_lists, score_lists
from wespeaker_lite.scoring.plda import train_plda
from wespeaker_lite.scoring.results import summarise
from wespeaker_lite.scoring.scores import read_scores
from wespeaker_lite.scoring.verification import read_verification

SIZE = 6
PLAIN = ("cosine", "snorm", "asnorm")


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
    results = score_lists(embeddings, cohort, {"list": trials}, ScoringOptions(PLAIN, top_n=5), tmp_path)
    for scoring, top_n in (("cosine", None), ("snorm", 20), ("asnorm", 5)):
        read, scores = read_scores(tmp_path / "scores" / f"list.{scoring}.score")
        assert (read.enroll, read.test) == (trials.enroll, trials.test)
        pairs = zip(trials.enroll, trials.test, strict=True)
        wanted = [plain_score(embeddings, cohort, pair, top_n) for pair in pairs]
        np.testing.assert_allclose(scores, wanted, atol=2e-5)
        assert results["list"][scoring] == summarise(read, scores, "")  # figures fit the file, rounding and all
        assert results["list"][scoring].items() >= {"trials": 64, "targets": 8, "nontargets": 56}.items()


def test_scores_equal_to_the_decimals_of_the_file_are_ties(tmp_path: Path) -> None:
    """Metrics computed from the score file equal those in results.json."""
    embeddings = Embeddings(np.array([[1, 0], [2e-8, 1], [1e-8, 1]], np.float32), {"e": 0, "t": 1, "n": 2})
    trials = Trials(["e", "e"], ["t", "n"], np.array([True, False]))
    results = score_lists(embeddings, None, {"list": trials}, ScoringOptions(("cosine",)), tmp_path)
    assert results["list"]["cosine"]["eer"] == 0.5


def test_without_a_cohort_nothing_is_subtracted(tmp_path: Path, embeddings: Embeddings, trials: Trials) -> None:
    score_lists(embeddings, None, {"list": trials}, ScoringOptions(("cosine",)), tmp_path)
    _, scores = read_scores(tmp_path / "scores" / "list.cosine.score")
    wanted = [plain_score(embeddings, None, pair, None) for pair in zip(trials.enroll, trials.test, strict=True)]
    np.testing.assert_allclose(scores, wanted, atol=2e-6)


def test_only_utterances_of_trials_are_checked(
    tmp_path: Path, embeddings: Embeddings, cohort: Cohort, trials: Trials
) -> None:
    embeddings.vectors[embeddings.index["s3-a"]] = np.nan
    keep = [row for row, name in enumerate(trials.enroll) if name != "s3-a"]
    some = Trials([trials.enroll[row] for row in keep], [trials.test[row] for row in keep], trials.labels[keep])
    score_lists(embeddings, cohort, {"list": some}, ScoringOptions(PLAIN, top_n=5), tmp_path)
    with pytest.raises(InputError, match="'s3-a' is not finite"):
        score_lists(embeddings, cohort, {"list": trials}, ScoringOptions(PLAIN, top_n=5), tmp_path)


def test_normalisation_needs_a_cohort(tmp_path: Path, embeddings: Embeddings, trials: Trials) -> None:
    with pytest.raises(InputError, match="snorm needs a cohort"):
        score_lists(embeddings, None, {"list": trials}, ScoringOptions(PLAIN), tmp_path)
    assert not (tmp_path / "scores").exists()


def test_a_list_with_one_class_is_an_error(tmp_path: Path, embeddings: Embeddings) -> None:
    trials = Trials(["s0-a"], ["s0-b"], np.array([True]))
    with pytest.raises(InputError, match="odd cosine: none of the 1 trials is a nontarget"):
        score_lists(embeddings, None, {"odd": trials}, ScoringOptions(("cosine",)), tmp_path)


def test_options_are_checked() -> None:
    with pytest.raises(InputError, match="unknown scoring 'asnrom'; did you mean 'asnorm'"):
        ScoringOptions(("cosine", "asnrom"))
    with pytest.raises(InputError, match="unknown scoring 'plda_qfm'; did you mean 'plda_qmf'"):
        ScoringOptions(("plda_qfm",))
    with pytest.raises(InputError, match=r"scoring\.scorings is empty"):
        ScoringOptions(())
    with pytest.raises(InputError, match="one appears twice in cosine plda cosine"):
        ScoringOptions(("cosine", "plda", "cosine"))
    for given in ({"block_mb": 0}, {"top_n": 1}):
        with pytest.raises(InputError, match=f"scoring.{next(iter(given))}: .* does not lie in"):
            read_options(None, **given)


def test_two_lists_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "trials").write_text("a b target\n")
    with pytest.raises(InputError, match="another list is called 'trials' too"):
        read_trial_lists([tmp_path / "one" / "trials", tmp_path / "two" / "trials"])
    with pytest.raises(InputError, match="scores of calibration's own trials"):
        read_trial_lists([tmp_path / "calibration"])


@pytest.fixture
def training() -> Training:
    """Thirty speakers with three sessions of two utterances, and lengths."""
    rng = np.random.default_rng(2)
    names = [f"t{speaker:02d}-v{session}-{take}" for speaker in range(30) for session in range(3) for take in range(2)]
    voices = rng.standard_normal((30, SIZE))
    vectors = (voices[np.arange(180) // 6] + rng.standard_normal((180, SIZE))).astype(np.float32)
    embeddings = Embeddings(vectors, {name: row for row, name in enumerate(names)}, rng.integers(100, 900, 180))
    utt2spk = {name: name[:3] for name in names}
    return Training(embeddings, utt2spk, draw_calibration_trials(utt2spk, CalibrationOptions(trials=400)))


def cohort_of(training: Training) -> Cohort:
    means = training.embeddings.vectors.reshape(30, 6, SIZE).mean(axis=1)
    index = {f"t{speaker:02d}": speaker for speaker in range(30)}
    return Cohort(Embeddings(means, index), training.embeddings.vectors.mean(axis=0))


def plain_inputs(embeddings: Embeddings, cohort: Cohort, trials: Trials, top_n: int) -> np.ndarray:
    """AS-norm's score and the quality of both sides, trial by trial; a speaker is not in its own cohort."""

    def unit(vector: np.ndarray) -> np.ndarray:
        return (vector - cohort.mean) / np.linalg.norm(vector - cohort.mean)

    impostors = {name: unit(cohort.embeddings.vectors[row]) for name, row in cohort.embeddings.index.items()}
    inputs = []
    for pair in zip(trials.enroll, trials.test, strict=True):
        rows = [embeddings.index[name] for name in pair]
        sides = [unit(embeddings.vectors[row]) for row in rows]
        near = [
            np.sort([side @ other for name, other in impostors.items() if name != utterance.split("-")[0]])[-top_n:]
            for side, utterance in zip(sides, pair, strict=True)
        ]
        score = np.mean([(sides[0] @ sides[1] - scores.mean()) / scores.std() for scores in near])
        qualities = (
            [np.log(min(embeddings.frames[row], 600)) for row in rows],
            [np.linalg.norm(embeddings.vectors[row]) for row in rows],
            [scores.mean() for scores in near],
        )
        inputs.append([score, *(value for both in qualities for value in sorted(both))])
    return np.array(inputs)


def test_qmf_is_learnt_from_the_training_trials_and_applied_to_the_list(
    tmp_path: Path, embeddings: Embeddings, training: Training, trials: Trials
) -> None:
    embeddings = Embeddings(embeddings.vectors, embeddings.index, np.arange(16) * 60 + 100)
    cohort = cohort_of(training)
    options = ScoringOptions(
        ("asnorm", "asnorm_linear", "asnorm_qmf"), 5, calibration=CalibrationOptions(max_frames=600)
    )
    results = score_lists(embeddings, cohort, {"list": trials}, options, tmp_path, training)
    learnt = plain_inputs(training.embeddings, cohort, training.trials, 5)
    inputs = plain_inputs(embeddings, cohort, trials, 5)
    for scoring, columns in (("asnorm_linear", slice(0, 1)), ("asnorm_qmf", slice(None))):
        calibration = train_calibration(learnt[:, columns], training.trials.labels, 0.5)
        for name, wanted in (("list", inputs), ("calibration", learnt)):
            read, scores = read_scores(tmp_path / "scores" / f"{name}.{scoring}.score")
            np.testing.assert_allclose(scores, calibration.apply(wanted[:, columns]), atol=2e-3)
        assert read.enroll == training.trials.enroll
        assert {"cllr", "min_cllr", "actdcf_p0.01", "actdcf_p0.05"} < results["list"][scoring].keys()
    assert list(results) == ["list"]
    assert "cllr" not in results["list"]["asnorm"]
    assert results["list"]["asnorm"]["eer"] == results["list"]["asnorm_linear"]["eer"]


def test_plda_is_trained_on_the_training_set(
    tmp_path: Path, embeddings: Embeddings, training: Training, trials: Trials
) -> None:
    cohort = cohort_of(training)
    results = score_lists(embeddings, cohort, {"list": trials}, ScoringOptions(("plda",)), tmp_path, training)
    assert results["list"]["plda"].keys() == {
        "eer",
        "eer_threshold",
        "mindcf_p0.01",
        "mindcf_p0.05",
        "trials",
        "targets",
        "nontargets",
    }
    _, scores = read_scores(tmp_path / "scores" / "list.plda.score")
    speakers = np.arange(180) // 6
    plda = train_plda(training.embeddings.vectors, speakers, cohort.mean, PldaOptions())
    rows = embeddings.rows(trials.enroll), embeddings.rows(trials.test)
    np.testing.assert_allclose(scores, plda.prepare(embeddings.vectors).scores(*rows), atol=1e-4)


def test_a_scoring_needs_its_training_data(
    tmp_path: Path, embeddings: Embeddings, cohort: Cohort, training: Training, trials: Trials
) -> None:
    for scoring, given, message in (
        ("plda", (cohort, None), "plda is trained on the cohort's utterances"),
        ("cosine_linear", (None, None), "cosine_linear is trained on"),
        ("cosine_qmf", (cohort_of(training), training), "cosine_qmf uses durations"),
        ("cosine_linear", (cohort, training), "the cohort has no speaker"),
        (
            "cosine_linear",
            (cohort_of(training), replace(training, trials=trials)),
            "utterance 's0-a' is not in the data",
        ),
        ("plda", (cohort_of(training), replace(training, utt2spk={})), "no speaker for utterance 't00-v0-0'"),
    ):
        with pytest.raises(InputError, match=message):
            score_lists(embeddings, given[0], {"list": trials}, ScoringOptions((scoring,)), tmp_path, given[1])
    assert not (tmp_path / "scores").exists()


def test_calibration_that_is_too_easy_gives_a_warning(
    tmp_path: Path, embeddings: Embeddings, training: Training, trials: Trials, caplog: pytest.LogCaptureFixture
) -> None:
    training.embeddings.vectors[:] = np.repeat(training.embeddings.vectors[::6], 6, axis=0)
    score_lists(
        embeddings, cohort_of(training), {"list": trials}, ScoringOptions(("cosine_linear",)), tmp_path, training
    )
    assert "cosine_linear: the score separates all calibration trials" in caplog.text


def test_options_are_those_of_the_config_and_the_command(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("train: {}\nscoring: {top_n: 7, calibration: {prior: 0.05}, scorings: [plda]}\n")
    options = read_options(config, top_n=None, scorings=("cosine",))
    assert (options.top_n, options.scorings, options.calibration.prior) == (7, ("cosine",), 0.05)
    assert read_options(None) == ScoringOptions()
    config.write_text("scoring: {calibration: {priro: 0.05}}\n")
    with pytest.raises(InputError, match=r"scoring.calibration: unknown key 'priro'; did you mean 'prior'"):
        read_options(config)


def test_only_needed_training_embeddings_are_read(tmp_path: Path, training: Training) -> None:
    with ArkWriter(tmp_path / "xvector") as writer:
        for name, row in training.embeddings.index.items():
            writer.write(name, training.embeddings.vectors[row])
    write_table(tmp_path / "utt2spk", training.utt2spk)
    (tmp_path / "list").write_text("t00-v0-0 t00-v1-1 target\nt00-v0-0 t03-v1-1 nontarget\n")
    paths = tmp_path / "xvector.scp", tmp_path / "utt2spk", None
    own = CalibrationOptions(list=str(tmp_path / "list"))
    wanted = cohort_of(training)
    cohort, read = read_training(*paths, ScoringOptions(PLAIN))
    assert read is None
    np.testing.assert_allclose(cohort.embeddings.vectors, wanted.embeddings.vectors, atol=1e-6)
    _, read = read_training(*paths, ScoringOptions(("cosine_linear",), calibration=own))
    assert list(read.embeddings.index) == ["t00-v0-0", "t00-v1-1", "t03-v1-1"]
    np.testing.assert_array_equal(read.embeddings.vectors, training.embeddings.vectors[[0, 3, 21]])
    assert len(read.trials) == 2
    same, read = read_training(*paths, ScoringOptions(("plda",)))
    np.testing.assert_array_equal(same.embeddings.vectors, cohort.embeddings.vectors)
    np.testing.assert_array_equal(same.mean, cohort.mean)
    assert read.trials is None
    np.testing.assert_array_equal(read.embeddings.vectors, training.embeddings.vectors)


def test_the_file_for_verification_is_written(
    tmp_path: Path, embeddings: Embeddings, cohort: Cohort, trials: Trials
) -> None:
    results = score_lists(embeddings, cohort, {"list": trials}, ScoringOptions(("cosine",)), tmp_path)
    found = read_verification(tmp_path / "final.pt")
    np.testing.assert_array_equal(found.mean, cohort.mean)
    assert found.thresholds == {"list": results["list"]["cosine"]["eer_threshold"]}
    assert (found.calibration, found.weights) == (None, "")
    (tmp_path / "verify.json").write_text('{"mean": [1], "thresholds": {}}')
    with pytest.raises(InputError, match=r"verify\.json: not what stage 6 writes"):
        read_verification(tmp_path / "final.pt")


def test_unlabelled_utterances_are_in_no_cohort_mean_plda_or_calibration(
    tmp_path: Path, training: Training, caplog: pytest.LogCaptureFixture
) -> None:
    def written(folder: Path, unknown: dict[str, np.ndarray]) -> tuple[Path, Path, None]:
        vectors = {name: training.embeddings.vectors[row] for name, row in training.embeddings.index.items()} | unknown
        with ArkWriter(folder / "xvector") as writer:
            for name, vector in vectors.items():
                writer.write(name, vector)
        write_table(folder / "utt2spk", dict(training.utt2spk) | {name: name for name in unknown})
        return folder / "xvector.scp", folder / "utt2spk", None

    size = training.embeddings.vectors.shape[1]
    unknown = {name: np.full(size, 100 * n, np.float32) for n, name in enumerate(("a", "t00-zz", "z"))}
    mixed, plain = written(tmp_path / "mixed", unknown), written(tmp_path / "plain", {})
    write_table(tmp_path / "list", dict.fromkeys(unknown, "yes"))
    options = CalibrationOptions(trials=40)
    for scorings in (PLAIN, ("cosine_linear",), ("plda", "cosine_linear")):
        expected = read_training(*plain, ScoringOptions(scorings, calibration=options))
        cohort, read = read_training(*mixed, ScoringOptions(scorings, calibration=options), tmp_path / "list")
        assert list(cohort.embeddings.index) == list(expected[0].embeddings.index)
        np.testing.assert_array_equal(cohort.embeddings.vectors, expected[0].embeddings.vectors)
        np.testing.assert_array_equal(cohort.mean, expected[0].mean)
        if read is not None:
            assert read.utt2spk == training.utt2spk
            assert sorted(read.embeddings.index) == sorted(expected[1].embeddings.index)
            assert (read.trials.enroll, read.trials.test) == (expected[1].trials.enroll, expected[1].trials.test)
    write_table(tmp_path / "list", dict.fromkeys({*unknown, *training.utt2spk.values()}, "yes"))
    assert read_training(*mixed, ScoringOptions(PLAIN), tmp_path / "list") == (None, None)
    assert "all utterances are unlabelled, so there is no cohort" in caplog.text
