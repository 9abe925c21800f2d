"""Calibration against known models, other optimisers and its own definitions."""

import numpy as np
import pytest
from scipy.optimize import minimize

from wespeaker_lite.core.config import from_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.recipe.scoring_config import CalibrationOptions
from wespeaker_lite.scoring.calibration import (
    QUALITY_INPUTS,
    draw_calibration_trials,
    pair_quality,
    train_calibration,
)
from wespeaker_lite.scoring.metrics import cllr, min_cllr


def gaussian_trials(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores N(2, 1) of targets and N(-1, 1) of nontargets: their log-likelihood ratio is 3 x - 1.5."""
    rng = np.random.default_rng(seed)
    labels = rng.random(count) < 0.2
    return rng.standard_normal(count) + np.where(labels, 2.0, -1.0), labels


def test_log_likelihood_ratios_of_gaussian_scores_are_recovered() -> None:
    scores, labels = gaussian_trials(200_000, 0)
    for prior in (0.5, 0.05):
        calibration = train_calibration(scores[:, None], labels, prior)
        np.testing.assert_allclose([*calibration.weights, calibration.bias], [3.0, -1.5], atol=0.08)
    np.testing.assert_allclose(calibration.apply(np.array([[0.5]])), 0.0, atol=0.08)


@pytest.mark.parametrize("prior", [0.5, 0.05])
def test_no_other_model_costs_less(prior: float) -> None:
    """Against a derivative-free search on the weighted cost, summed trial by trial."""
    rng = np.random.default_rng(1)
    scores, labels = gaussian_trials(300, 2)
    inputs = np.column_stack([100 + 7 * scores, rng.standard_normal(300)])

    def cost(model: np.ndarray) -> float:
        ratios = inputs @ model[:2] + model[2] + np.log(prior / (1 - prior))
        misses, alarms = np.log1p(np.exp(-ratios[labels])), np.log1p(np.exp(ratios[~labels]))
        return prior * misses.mean() + (1 - prior) * alarms.mean()

    found = train_calibration(inputs, labels, prior)
    model = np.array([*found.weights, found.bias])
    searched = minimize(
        cost, model * 0.9, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 5000}
    )
    assert cost(model) <= searched.fun + 1e-6
    for change in np.eye(3) * np.abs(model) * 0.05:
        assert cost(model) < min(cost(model + change), cost(model - change))


def test_the_scale_of_inputs_does_not_matter() -> None:
    scores, labels = gaussian_trials(2000, 3)
    noise = np.random.default_rng(4).standard_normal(2000)
    inputs = np.column_stack([scores, noise])
    scaled = inputs * [1e-4, 1e5] + [50, -3e6]
    expected = train_calibration(inputs, labels, 0.5).apply(inputs)
    np.testing.assert_allclose(train_calibration(scaled, labels, 0.5).apply(scaled), expected, atol=1e-4)


def test_a_constant_input_has_no_weight() -> None:
    scores, labels = gaussian_trials(500, 5)
    calibration = train_calibration(np.column_stack([scores, np.full(500, 6.9)]), labels, 0.5)
    assert calibration.weights[1] == 0


def test_perfectly_separable_trials_still_have_an_optimum() -> None:
    calibration = train_calibration(np.array([[-2.0], [-1.0], [1.0], [2.0]]), np.arange(4) > 1, 0.5)
    assert 0 < calibration.weights[0] < 100
    assert abs(calibration.bias) < 1e-3


def test_qmf_compensates_a_quality_that_shifts_scores() -> None:
    """Short utterances have lower scores in both classes: QMF knows the duration, the score alone does not."""
    rng = np.random.default_rng(6)
    quality = np.column_stack([rng.uniform(4, 8, 400), rng.standard_normal((400, 2))])
    enroll, test = rng.integers(0, 400, (2, 20_000))
    labels = rng.random(20_000) < 0.5
    shorter = np.minimum(quality[enroll, 0], quality[test, 0])
    scores = rng.standard_normal(20_000) + 2.0 * labels + 1.5 * shorter
    inputs = np.column_stack([scores, pair_quality(quality, enroll, test)])
    alone, both = (train_calibration(columns, labels, 0.5).apply(columns) for columns in (inputs[:, :1], inputs))
    assert min_cllr(both, labels) < min_cllr(alone, labels) - 0.1
    assert cllr(both, labels) < min_cllr(both, labels) + 0.01


def test_quality_inputs_are_those_of_the_names_and_symmetric() -> None:
    quality = np.array([[1.0, 20.0, 0.3], [2.0, 10.0, 0.4]])
    first, second = np.array([0, 0]), np.array([1, 0])
    inputs = pair_quality(quality, first, second)
    named = dict(zip(QUALITY_INPUTS, inputs[0].tolist(), strict=True))
    assert named == {
        "lower_log_duration": 1.0, "higher_log_duration": 2.0, "lower_magnitude": 10.0, "higher_magnitude": 20.0,
        "lower_cohort_mean": 0.3, "higher_cohort_mean": 0.4,
    }  # fmt: skip
    np.testing.assert_array_equal(inputs, pair_quality(quality, second, first))


def ids(speakers: int, sessions: int, takes: int, joint: str = "-") -> dict[str, str]:
    return {
        joint.join((f"s{speaker}", f"v-{session}", f"{take}")): f"s{speaker}"
        for speaker in range(speakers)
        for session in range(sessions)
        for take in range(takes)
    }


@pytest.mark.parametrize("joint", ["-", "/"])
def test_trials_are_drawn_across_sessions(joint: str) -> None:
    utt2spk = ids(20, 3, 4, joint)
    trials = draw_calibration_trials(utt2spk, CalibrationOptions(trials=200))
    assert len(trials) == 200
    assert trials.labels.sum() == 100
    for enroll, test, label in zip(trials.enroll, trials.test, trials.labels, strict=True):
        assert (utt2spk[enroll] == utt2spk[test]) == label
        if label:
            assert enroll[:-2] != test[:-2]
    again, other = (draw_calibration_trials(utt2spk, CalibrationOptions(trials=200, seed=seed)) for seed in (0, 1))
    assert again.enroll == trials.enroll
    assert other.enroll != trials.enroll


def test_ids_without_sessions_and_speakers_of_one_session_have_targets_too() -> None:
    for utt2spk in ({f"s{n // 4}-{n}": f"s{n // 4}" for n in range(12)}, ids(3, 1, 4)):
        trials = draw_calibration_trials(utt2spk, CalibrationOptions())
        assert trials.labels.sum() == 18  # all pairs there are
        assert all(one != two for one, two in zip(trials.enroll, trials.test, strict=True))


def test_a_large_set_gives_the_requested_number_of_trials() -> None:
    utt2spk = ids(50, 10, 10)
    trials = draw_calibration_trials(utt2spk, CalibrationOptions(trials=300))
    assert len(trials) == 300
    assert len(set(trials.enroll) | set(trials.test)) > 200
    assert len({utt2spk[name] for name in trials.enroll}) > 40


def test_sets_without_targets_and_bad_options_are_refused() -> None:
    with pytest.raises(InputError, match=r"calibration: .* no target trial .* scoring\.calibration\.list"):
        draw_calibration_trials({"a-1": "a", "b-1": "b"}, CalibrationOptions())
    for options, message in (({"prior": 1.0}, "prior: 1.0 does not"), ({"trials": 1}, "trials: 1 does not lie")):
        with pytest.raises(InputError, match=message):
            from_mapping(CalibrationOptions, options, "here")
