"""Augmentation, and the random draws of crops."""

import numpy as np
import pytest
import scipy.signal
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from wespeaker_lite.audio.speed import speed_perturb, speed_prefix
from wespeaker_lite.core.config import from_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.data.augmentation import (
    AugmentConfig,
    SpecAugmentConfig,
    pick,
    spec_augment,
    uniforms,
)  # fmt: skip


@given(
    seed=st.integers(-(2**70), 2**70), epoch=st.integers(0, 10**6), indices=st.lists(st.integers(0, 10**7), min_size=1)
)
def test_draws_depend_only_on_seed_epoch_and_index(seed: int, epoch: int, indices: list[int]) -> None:
    together = uniforms(seed, epoch, np.array(indices), 5)
    alone = [uniforms(seed, epoch, np.array([index]), 7)[0, :5] for index in indices]
    np.testing.assert_array_equal(together, alone)


def test_draws_are_uniform_and_independent_along_every_axis() -> None:
    indices = np.arange(500)
    draws = np.stack([[uniforms(seed, epoch, indices, 4) for epoch in range(10)] for seed in range(10)])
    assert draws.min() >= 0
    assert draws.max() < 1
    assert scipy.stats.kstest(draws.ravel(), "uniform").pvalue > 1e-3
    assert len(np.unique(draws)) == draws.size
    for axis in range(4):
        first, second = np.split(np.moveaxis(draws, axis, 0)[: draws.shape[axis] // 2 * 2], 2)
        neighbours = [np.delete(draws, end, axis).ravel() for end in (0, -1)]
        for pair in ((first.ravel(), second.ravel()), neighbours):
            assert abs(np.corrcoef(*pair)[0, 1]) < 4 / np.sqrt(pair[0].size)


def test_picks_are_uniform_integers() -> None:
    draws = uniforms(1, 2, np.arange(70000), 1)[:, 0]
    counts = np.bincount(pick(draws, 7))
    assert len(counts) == 7
    assert scipy.stats.chisquare(counts).pvalue > 1e-3
    np.testing.assert_array_equal(pick(np.array([0.0, 0.9999999999999999]), np.array([1, 5])), [0, 4])


def masked(config: SpecAugmentConfig, frames: int = 40, mels: int = 30) -> tuple[np.ndarray, np.ndarray]:
    return spec_augment(uniforms(0, 0, np.arange(2000), config.num_draws), frames, mels, config)


@pytest.mark.parametrize("axis", [0, 1])
def test_one_mask_is_one_band_of_at_most_its_width(axis: int) -> None:
    options = {"time_masks": 1, "time_width": 10} if axis == 0 else {"freq_masks": 1, "freq_width": 10}
    both = masked(SpecAugmentConfig(**options))
    lines, size = both[axis], (40, 30)[axis]
    assert lines.shape == (2000, size)
    assert not both[1 - axis].any()
    widths = lines.sum(1)
    edges = np.diff(np.pad(lines, ((0, 0), (1, 1))).astype(int), axis=1)
    assert set((edges != 0).sum(1)[widths > 0]) == {2}  # one stretch
    assert scipy.stats.chisquare(np.bincount(widths, minlength=11)).pvalue > 1e-3  # 0 to 10, alike
    starts = lines.argmax(1)[widths == 10]
    assert (starts.min(), starts.max()) == (0, size - 10)


def test_several_masks_are_independent() -> None:
    frames, bands = masked(SpecAugmentConfig(freq_masks=2, freq_width=5, time_masks=3, time_width=5))
    assert 5 < bands.sum(1).max() <= 10
    assert 10 < frames.sum(1).max() <= 15
    assert abs(np.corrcoef(frames.sum(1), bands.sum(1))[0, 1]) < 0.08


def test_a_mask_wider_than_the_crop_fits() -> None:
    frames, _ = masked(SpecAugmentConfig(time_masks=1, time_width=99), frames=5)
    assert set(frames.sum(1)) == set(range(6))


def test_negative_masks_are_refused() -> None:
    with pytest.raises(InputError, match="freq_masks: -1 does not lie in"):
        from_mapping(SpecAugmentConfig, {"freq_masks": -1}, "here")


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_speed_changes_length_and_pitch(factor: float) -> None:
    time = np.arange(32000) / 16000
    fast = speed_perturb(np.sin(2 * np.pi * 400 * time).astype(np.float32), factor)
    assert fast.dtype == np.float32
    assert len(fast) == pytest.approx(32000 / factor, abs=1)
    spectrum = np.abs(np.fft.rfft(fast))
    assert np.argmax(spectrum) * 16000 / len(fast) == pytest.approx(400 * factor, abs=1)


def test_speed_equals_resampling_by_scipy() -> None:
    samples = np.random.default_rng(0).normal(size=16000)
    low = scipy.signal.sosfilt(scipy.signal.butter(8, 0.6, output="sos"), samples).astype(np.float32)
    expected = scipy.signal.resample_poly(low.astype(np.float64), 10, 9)
    ours = speed_perturb(low, 0.9)
    np.testing.assert_allclose(ours[200:-200], expected[200 : len(ours) - 200], atol=0.02 * np.abs(low).max())


def test_invalid_speeds_are_refused_and_prefixes_are_simple() -> None:
    with pytest.raises(InputError, match=r"speed 0.91234567: .* is not a whole number of Hz"):
        speed_perturb(np.zeros(100, dtype=np.float32), 0.91234567)
    assert [speed_prefix(factor) for factor in (0.9, 1.0, 1.1)] == ["sp0.9-", "", "sp1.1-"]


@pytest.mark.parametrize("speeds", [(1.0,), (0.9, 0.9), (0.0,), (-1.0, 1.1)])
def test_speeds_are_above_0_each_once_and_without_1(speeds: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match=r"without 1|does not lie in"):
        from_mapping(AugmentConfig, {"speeds": speeds}, "here")


@pytest.mark.parametrize("options", [{"copies": ("noise", "noise")}, {"share": 0.0}, {"share": 1.1}, {"seed": -1}])
def test_copies_are_named_once_and_are_of_a_share(options: dict) -> None:
    with pytest.raises(InputError, match=r"each once|does not lie in"):
        from_mapping(AugmentConfig, options, "here")


def test_a_share_of_crops_has_a_narrow_band_and_keeps_other_masks() -> None:
    options = {"freq_masks": 1, "freq_width": 4, "time_masks": 1}
    draws = uniforms(0, 0, np.arange(2000), 5)
    narrow = SpecAugmentConfig(narrow_band=0.3, narrow_band_width=10, **options)
    frames, bands = spec_augment(draws, 40, 30, narrow)
    plain_frames, plain_bands = spec_augment(draws[:, :4], 40, 30, SpecAugmentConfig(**options))
    np.testing.assert_array_equal(frames, plain_frames)
    np.testing.assert_array_equal(bands[:, :20], plain_bands[:, :20])
    cut = bands[:, 20:].all(axis=1)
    np.testing.assert_array_equal(bands[~cut], plain_bands[~cut])
    assert 0.27 < cut.mean() < 0.33
    with pytest.raises(InputError, match=r"narrow_band: 1\.5 does not lie in"):
        from_mapping(SpecAugmentConfig, {"narrow_band": 1.5}, "here")
