"""EER, minDCF, actDCF and Cllr against exact fractions, plain loops, examples by hand, and known distributions."""

import math
from fractions import Fraction
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.kaldi.trials import Trials
from wespeaker_lite.scoring.metrics import (
    act_dcf,
    check_scores,
    cllr,
    eer_threshold,
    equal_error_rate,
    measure,
    measure_calibrated,
    min_cllr,
    min_dcf,
    operating_points,
)


def exact_points(scores: list[int], labels: list[bool]) -> list[tuple[Fraction, Fraction]]:
    """(miss, false alarm) at every threshold, counted trial by trial."""
    targets = [score for score, label in zip(scores, labels, strict=True) if label]
    nontargets = [score for score, label in zip(scores, labels, strict=True) if not label]
    return [
        (
            Fraction(sum(score < threshold for score in targets), len(targets)),
            Fraction(sum(score >= threshold for score in nontargets), len(nontargets)),
        )
        for threshold in [*sorted(set(scores)), max(scores) + 1]
    ]


def exact_eer(points: list[tuple[Fraction, Fraction]]) -> Fraction:
    """The point where the line through the operating points crosses miss = false alarm."""
    for (miss, alarm), (next_miss, next_alarm) in pairwise(points):
        if miss <= alarm and next_miss >= next_alarm:
            step = (alarm - miss) / ((next_miss - miss) + (alarm - next_alarm))
            return miss + step * (next_miss - miss)
    raise AssertionError("the curve does not cross")


def figures(scores: object, labels: object) -> dict[str, float]:
    points = operating_points(np.asarray(scores, dtype=float), np.asarray(labels, dtype=bool))
    return {name: float(value) for name, value in measure(points.miss, points.false_alarm).items()}


trial_lists = st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=60).filter(
    lambda trials: len({label for _, label in trials}) == 2
)


@given(trial_lists)
def test_metrics_are_exact_with_ties(trials: list[tuple[int, bool]]) -> None:
    scores, labels = zip(*trials, strict=True)
    points = exact_points(list(scores), list(labels))
    found = figures(scores, labels)
    assert found["eer"] == pytest.approx(float(exact_eer(points)), abs=1e-12)
    for p_target in (Fraction(1, 100), Fraction(1, 20)):
        lowest = min(p_target * miss + (1 - p_target) * alarm for miss, alarm in points) / p_target
        assert found[f"mindcf_p{float(p_target)}"] == pytest.approx(float(lowest), abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "labels", "eer", "dcf"),
    [
        pytest.param([1, 2, 3, 4], [0, 0, 1, 1], 0, 0, id="perfect"),
        pytest.param([1, 2, 3, 4], [1, 1, 0, 0], 1, 1, id="reversed"),
        pytest.param([7, 7, 7], [1, 0, 0], 0.5, 1, id="all tied"),
        pytest.param(
            [1, 3, 2, 4], [0, 0, 1, 1], 0.5, 0.5, id="one swap: rejecting 3 and below misses one target of two"
        ),
        pytest.param([1, 2, 2, 3], [0, 0, 1, 1], 0.25, 0.5, id="a tie between the classes is split"),
    ],
)
def test_examples_by_hand(scores: list[int], labels: list[int], eer: float, dcf: float) -> None:
    assert figures(scores, labels) == pytest.approx({"eer": eer, "mindcf_p0.01": dcf, "mindcf_p0.05": dcf})


def test_the_eer_of_gaussian_scores_equals_the_theory() -> None:
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(3, 1, 200_000), rng.normal(0, 2, 200_000)])
    eer = figures(scores, np.arange(400_000) < 200_000)["eer"]
    assert eer == pytest.approx(NormalDist().cdf(-3 / (1 + 2)), abs=0.002)


def test_a_high_prior_is_normalised_by_accepting_all() -> None:
    points = operating_points(np.array([7.0, 7.0]), np.array([True, False]))
    assert min_dcf(points.miss, points.false_alarm, 0.99) == pytest.approx(1)


def test_many_curves_at_once_equal_one_by_one() -> None:
    rng = np.random.default_rng(9)
    labels = np.arange(50) < 20
    curves = [operating_points(rng.permutation(50) + 0.0, labels) for _ in range(7)]
    miss, false_alarm = (np.stack([getattr(curve, name) for curve in curves]) for name in ("miss", "false_alarm"))
    for name, values in measure(miss, false_alarm).items():
        alone = [measure(curve.miss, curve.false_alarm)[name] for curve in curves]
        np.testing.assert_array_equal(values, alone)


def test_thresholds_give_their_rates() -> None:
    rng = np.random.default_rng(10)
    scores, labels = rng.integers(0, 9, 100).astype(float), rng.random(100) < 0.3
    points = operating_points(scores, labels)
    for threshold, miss, false_alarm in zip(points.thresholds, points.miss, points.false_alarm, strict=True):
        assert miss == pytest.approx(np.mean(scores[labels] < threshold))
        assert false_alarm == pytest.approx(np.mean(scores[~labels] >= threshold))
    assert equal_error_rate(points.miss, points.false_alarm).shape == ()


def test_scores_that_cannot_be_measured_are_named() -> None:
    trials = Trials(["a", "b", "c"], ["x", "y", "z"], np.array([True, False, False]))
    with pytest.raises(InputError, match=r"list: the score of trial b y is nan, and 1 more"):
        check_scores(np.array([0.0, np.nan, np.inf]), trials, "list")
    for label, missing in ((True, "nontarget"), (False, "target")):
        one_class = Trials(["a"], ["x"], np.array([label]))
        with pytest.raises(InputError, match=f"none of the 1 trials is a {missing} trial"):
            check_scores(np.zeros(1), one_class, "list")
    check_scores(np.zeros(3), trials, "list")


def plain_cllr(scores: list[float], labels: list[bool]) -> float:
    bits = {True: [], False: []}
    for score, label in zip(scores, labels, strict=True):
        bits[label].append(math.log2(1 + math.exp(-score if label else score)))
    return (math.fsum(bits[True]) / len(bits[True]) + math.fsum(bits[False]) / len(bits[False])) / 2


def plain_pav(scores: list[int], labels: list[bool]) -> list[float]:
    """The log-likelihood ratio of every trial: neighbours are pooled while a lower score has higher odds."""
    totals = sum(labels), len(labels) - sum(labels)
    pools = []  # [scores, targets, nontargets]
    for score in sorted(set(scores)):
        mine = [label for other, label in zip(scores, labels, strict=True) if other == score]
        pools.append([{score}, sum(mine), len(mine) - sum(mine)])
        while len(pools) > 1 and pools[-2][1] * pools[-1][2] >= pools[-1][1] * pools[-2][2]:
            last = pools.pop()
            pools[-1] = [pools[-1][0] | last[0], pools[-1][1] + last[1], pools[-1][2] + last[2]]
    ratios = {}
    for members, targets, nontargets in pools:
        odds = math.inf if not nontargets else (targets / totals[0]) / (nontargets / totals[1])
        ratios |= dict.fromkeys(members, math.log(odds) if odds else -math.inf)
    return [ratios[score] for score in scores]


@given(trial_lists)
def test_cllr_and_min_cllr_equal_the_plain_loop(trials: list[tuple[int, bool]]) -> None:
    scores, labels = zip(*trials, strict=True)
    arrays = np.array(scores, float), np.array(labels)
    assert cllr(*arrays) == pytest.approx(plain_cllr(scores, labels), abs=1e-12)
    least = plain_cllr(plain_pav(scores, labels), labels)
    assert min_cllr(*arrays) == pytest.approx(least, abs=1e-9)
    assert least <= min(1, cllr(*arrays)) + 1e-12


@given(trial_lists)
def test_act_dcf_counts_errors_at_the_bayes_threshold(trials: list[tuple[int, bool]]) -> None:
    scores, labels = zip(*trials, strict=True)
    arrays = np.array(scores, float), np.array(labels)
    points = operating_points(*arrays)
    for p_target in (0.01, 0.05, 0.7):
        errors = {True: [], False: []}
        for score, label in trials:
            accepted = math.exp(score) * p_target / (1 - p_target) >= 1  # posterior odds
            errors[label].append(accepted != label)
        rates = {label: sum(wrong) / len(wrong) for label, wrong in errors.items()}
        cost = (p_target * rates[True] + (1 - p_target) * rates[False]) / min(p_target, 1 - p_target)
        assert act_dcf(*arrays, p_target) == pytest.approx(cost, abs=1e-12)
        assert act_dcf(*arrays, p_target) >= min_dcf(points.miss, points.false_alarm, p_target) - 1e-12


def test_a_ratio_at_the_threshold_is_accepted() -> None:
    threshold = np.log(0.95 / 0.05)
    assert act_dcf(np.array([threshold, threshold - 1]), np.array([True, False]), 0.05) == 0


def test_true_log_likelihood_ratios_have_the_lowest_cost() -> None:
    """Two Gaussians one standard deviation apart, with log-likelihood ratios by their densities."""
    rng = np.random.default_rng(1)
    labels = np.arange(400_000) < 200_000
    ratios = rng.standard_normal(400_000) + labels - 0.5  # log N(x; 1, 1) - log N(x; 0, 1) = x - 0.5
    found = measure_calibrated(ratios, labels)
    assert found["cllr"] - found["min_cllr"] == pytest.approx(0, abs=1e-3)
    assert cllr(2 * ratios, labels) > found["cllr"] + 0.01
    assert min_cllr(2 * ratios - 3, labels) == pytest.approx(found["min_cllr"], abs=1e-12)
    assert cllr(np.zeros(4), np.arange(4) < 2) == 1


def test_cllr_of_far_too_confident_ratios_is_large_but_finite() -> None:
    assert cllr(np.array([-1e4, 1e4]), np.array([True, False])) == pytest.approx(1e4 / np.log(2))


@pytest.mark.parametrize(
    ("scores", "labels", "threshold"),
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], 3),
        ([1, 2, 3, 4], [0, 1, 0, 1], 3),
        ([4, 3, 2, 1], [0, 0, 1, 1], 3),
        ([1, 1], [0, 1], 1),
    ],
)
def test_the_threshold_of_the_eer_point(scores: list[int], labels: list[int], threshold: float) -> None:
    points = operating_points(np.asarray(scores, dtype=float), np.asarray(labels, dtype=bool))
    assert eer_threshold(points) == threshold
