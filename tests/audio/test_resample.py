"""Resampling: correct lengths and values, in blocks of any size, in little memory."""

import numpy as np
import pytest
import scipy.signal

from tests.limits import little_memory
from wespeaker_lite.audio.resample import equal_parts, joined, resampled
from wespeaker_lite.core.errors import InputError

RATE = 16000


def tones(seconds: float, rate: int) -> np.ndarray:
    """Tones below the Nyquist frequency of all rates here."""
    time = np.arange(round(seconds * rate)) / rate
    return sum(0.1 * np.sin(2 * np.pi * hertz * time + hertz) for hertz in (100, 440, 1234, 3400)).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 11025, 16001, 22050, 44099, 44100, 48000, 96000, 384000])
def test_tones_keep_their_waveform_at_any_rate(rate: int) -> None:
    ours = joined(resampled([tones(1.0, rate)], rate, RATE))
    assert ours.dtype == np.float32
    assert ours.shape == (RATE,)
    np.testing.assert_allclose(ours[500:-500], tones(1.0, RATE)[500:-500], atol=1e-4)


@pytest.mark.parametrize(("up", "down"), [(2, 1), (1, 3), (160, 441), (10, 9)])
def test_noise_is_resampled_as_by_scipy(up: int, down: int) -> None:
    noise = np.random.default_rng(0).normal(size=44100)
    low = scipy.signal.sosfilt(scipy.signal.butter(8, 0.6 * min(1, up / down), output="sos"), noise).astype(np.float32)
    window = ("kaiser", 12.0)  # more attenuation than scipy's default
    expected = scipy.signal.resample_poly(low.astype(np.float64), up, down, window=window)
    ours = joined(resampled([low], 100 * down, 100 * up))
    assert abs(len(ours) - len(expected)) <= 1
    np.testing.assert_allclose(ours[300:-300], expected[300 : len(ours) - 300], atol=0.02 * np.abs(low).max())


@pytest.mark.parametrize("rate", [1000, 44099, 48000])
def test_blocks_do_not_change_the_result(rate: int) -> None:
    samples = np.random.default_rng(1).normal(0, 0.1, 7 * rate + 3).astype(np.float32)
    whole = joined(resampled([samples], rate, RATE))
    assert len(whole) == round(len(samples) * RATE / rate)
    for size in (1000, 4099):
        blocks = [samples[first : first + size] for first in range(0, len(samples), size)]
        np.testing.assert_array_equal(joined(resampled(blocks, rate, RATE)), whole)
    assert len(joined(resampled([], rate, RATE))) == 0
    same = [samples[:5], samples[5:]]
    assert all(one is other for one, other in zip(resampled(same, rate, rate), same, strict=True))


@pytest.mark.parametrize("rate", [1, 7, 15999, 44099, 383_999, 384_000])
def test_any_rate_needs_little_memory(rate: int) -> None:
    with little_memory(1 << 28):
        assert sum(map(len, resampled([np.ones(40, np.float32)] * 3, rate, RATE))) == round(120 * RATE / rate)


@pytest.mark.parametrize("rates", [(0, RATE), (-1, RATE), (384_001, RATE), (RATE, 0)])
def test_invalid_rates_are_refused(rates: tuple[int, int]) -> None:
    with pytest.raises(InputError, match=r"a sampling rate of .* Hz; expected 1 to 384000 Hz"):
        resampled([np.ones(9, np.float32)], *rates)


@pytest.mark.parametrize(("size", "count"), [(10, 1), (10, 3), (11, 4), (3, 3)])
def test_equal_parts_cover_all_samples_and_differ_by_one_at_most(size: int, count: int) -> None:
    samples = np.arange(size, dtype=np.float32)
    for cut in (1, 2, 7, size):
        blocks = [samples[first : first + cut] for first in range(0, size, cut)]
        parts = list(equal_parts(blocks, size, count))
        assert len(parts) == count
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        np.testing.assert_array_equal(np.concatenate(parts), samples)
