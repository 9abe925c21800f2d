"""The bootstrap over speakers against explicit lists of trials, and its coverage of a known true value."""

from statistics import NormalDist

import numpy as np
import pytest

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.kaldi.trials import Trials
from wespeaker_lite.report import bootstrap
from wespeaker_lite.report.bootstrap import (
    Resamples,
    TooFewSpeakersError,
    holm,
    interval,
    p_value,
    replicate_metrics,
    resample_speakers,
)
from wespeaker_lite.scoring.metrics import measure, operating_points


def all_trials(speakers: int, utterances: int) -> tuple[Trials, dict[str, str]]:
    """Every pair of utterances, each once."""
    utt2spk = {
        f"s{speaker:02d}-{number}": f"s{speaker:02d}" for speaker in range(speakers) for number in range(utterances)
    }
    names = list(utt2spk)
    pairs = [(first, second) for place, first in enumerate(names) for second in names[place + 1 :]]
    labels = np.array([utt2spk[first] == utt2spk[second] for first, second in pairs])
    return Trials([first for first, _ in pairs], [second for _, second in pairs], labels), utt2spk


def noisy_scores(trials: Trials, seed: int = 0) -> np.ndarray:
    return np.round(
        np.random.default_rng(seed).standard_normal(len(trials.labels)) + 1.5 * trials.labels, 1
    )  # with ties


def test_replicates_equal_explicit_lists() -> None:
    trials, utt2spk = all_trials(12, 3)
    scores = noisy_scores(trials)
    resamples = resample_speakers(trials, utt2spk, replicates=20, seed=3)
    replicates = replicate_metrics(scores, trials.labels, resamples)
    speakers = sorted(set(utt2spk.values()))
    for number, times in enumerate(resamples.times):
        drawn = dict(zip(speakers, times, strict=True))
        written_scores, written_labels = [], []
        for enroll, test, label, score in zip(trials.enroll, trials.test, trials.labels, scores, strict=True):
            first, second = utt2spk[enroll], utt2spk[test]
            copies = drawn[first] if label else drawn[first] * drawn[second]
            written_scores += [score] * copies
            written_labels += [label] * copies
        points = operating_points(np.array(written_scores), np.array(written_labels))
        for name, value in measure(points.miss, points.false_alarm).items():
            assert replicates[name][number] == pytest.approx(value, abs=1e-12)


def test_draws_have_as_many_speakers_as_the_set_and_depend_on_the_seed() -> None:
    trials, utt2spk = all_trials(15, 2)
    draws = resample_speakers(trials, utt2spk, replicates=500, seed=1)
    assert draws.times.shape == (500, 15)
    assert (draws.times.sum(axis=1) == 15).all()
    assert draws.times.mean(axis=0) == pytest.approx(1, abs=0.2)
    np.testing.assert_array_equal(draws.times, resample_speakers(trials, utt2spk, replicates=500, seed=1).times)
    assert (draws.times != resample_speakers(trials, utt2spk, replicates=500, seed=2).times).any()


def test_blocks_do_not_change_the_replicates(monkeypatch: pytest.MonkeyPatch) -> None:
    trials, utt2spk = all_trials(10, 2)
    draws = resample_speakers(trials, utt2spk, replicates=30)
    whole = replicate_metrics(noisy_scores(trials), trials.labels, draws)
    monkeypatch.setattr(bootstrap, "BLOCK_ELEMENTS", 1)
    single = replicate_metrics(noisy_scores(trials), trials.labels, draws)
    for name, values in whole.items():
        np.testing.assert_array_equal(values, single[name])


def test_differences_are_paired() -> None:
    """One system makes slightly fewer of the same errors: single intervals overlap, the paired one excludes 0."""
    trials, utt2spk = all_trials(20, 4)
    hardness = dict(zip(sorted(set(utt2spk.values())), np.random.default_rng(4).normal(0, 1, 20), strict=True))
    shared = np.array([hardness[utt2spk[name]] for name in trials.enroll]) + noisy_scores(trials, 5)
    systems = [shared + gain * trials.labels for gain in (0, 0.4)]
    draws = resample_speakers(trials, utt2spk, replicates=300)
    worse, better = (replicate_metrics(scores, trials.labels, draws)["eer"] for scores in systems)
    assert interval(better)[1] > interval(worse)[0]
    assert interval(better - worse)[1] < 0
    np.testing.assert_array_equal(worse, replicate_metrics(systems[0], trials.labels, draws)["eer"])


def test_intervals_cover_the_true_value_and_match_the_spread_of_the_estimate() -> None:
    """Target scores of speaker s are N(3 + u_s, 1), of two speakers N(v_a + v_b, 1); u, v are per speaker.

    Resampling of trials instead of speakers covers the true value in only two of three cases.
    """
    trials, utt2spk = all_trials(24, 3)
    truth = NormalDist().cdf(-3 / (np.hypot(1, 0.7) + np.sqrt(1 + 2 * 0.7**2)))
    figures, bounds = [], []
    for seed in range(50):
        rng = np.random.default_rng(seed)
        draws = resample_speakers(trials, utt2spk, replicates=150, seed=seed)
        u, v = 0.7 * rng.standard_normal((2, 24))
        scores = np.where(trials.labels, 3 + u[draws.enroll], v[draws.enroll] + v[draws.test])
        replicates = replicate_metrics(scores + rng.standard_normal(len(scores)), trials.labels, draws)["eer"]
        bounds.append(interval(replicates))
        figures.append(replicates.mean())
    lows, highs = np.array(bounds).T
    assert np.mean((lows <= truth) & (truth <= highs)) >= 0.84
    assert np.mean(highs - lows) == pytest.approx(2 * 1.96 * np.std(figures), rel=0.25)


def test_the_interval_contains_its_share() -> None:
    assert interval(np.arange(1001) / 1000) == pytest.approx((0.025, 0.975))
    assert interval(np.arange(1001) / 1000, level=0.5) == pytest.approx((0.25, 0.75))


def test_sets_that_cannot_be_resampled_are_refused() -> None:
    trials, utt2spk = all_trials(12, 2)
    with pytest.raises(InputError, match="'s00-0' of the trials has no speaker"):
        resample_speakers(trials, {})
    with pytest.raises(InputError, match="trial s00-0 s00-1: it is labelled nontarget"):
        resample_speakers(Trials(trials.enroll, trials.test, ~trials.labels), utt2spk)
    few, few_utt2spk = all_trials(9, 2)
    with pytest.raises(TooFewSpeakersError, match="9 speakers are too few"):
        resample_speakers(few, few_utt2spk)
    enroll, test = np.array(trials.enroll), np.array(trials.test)
    targets_of_one_speaker = ~trials.labels | (enroll == "s00-0")
    nontargets_of_one_pair = trials.labels | ((enroll == "s00-0") & (test == "s01-0"))
    for keep in (targets_of_one_speaker, nontargets_of_one_pair):
        with pytest.raises(TooFewSpeakersError, match="replicates have no target or no nontarget trial"):
            resample_speakers(Trials(list(enroll[keep]), list(test[keep]), trials.labels[keep]), utt2spk)


def test_equal_draws_give_the_plain_figures() -> None:
    trials, utt2spk = all_trials(10, 3)
    scores = noisy_scores(trials)
    drawn = resample_speakers(trials, utt2spk, replicates=1)
    once = Resamples(np.ones((1, 10), np.int32), drawn.enroll, drawn.test)
    points = operating_points(scores, trials.labels)
    for name, value in measure(points.miss, points.false_alarm).items():
        assert replicate_metrics(scores, trials.labels, once)[name][0] == pytest.approx(float(value))


def test_a_p_value_is_twice_the_smaller_tail() -> None:
    differences = np.array([-1.0] * 3 + [0.0] + [2.0] * 195)
    assert p_value(differences) == p_value(-differences) == 2 * (4 + 1) / 200
    assert p_value(np.zeros(99)) == 1


def test_holm_rejects_what_the_sequential_procedure_rejects() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        values, level = rng.random(6) ** 3, 0.05
        rejected: set[int] = set()
        for step, index in enumerate(np.argsort(values)):  # the definition: stop at the first that is not rejected
            if values[index] > level / (6 - step):
                break
            rejected.add(int(index))
        assert set(np.flatnonzero(holm(values) <= level)) == rejected
    assert holm([]).size == 0
