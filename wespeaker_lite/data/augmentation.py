"""Augmentation: options of augmented copies, SpecAugment on crops, and the random numbers for crops."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from wespeaker_lite.core.config import LARGEST_SEED, bounded

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def uniforms(seed: int, epoch: int, indices: np.ndarray, count: int) -> np.ndarray:
    """Draw `count` numbers in [0, 1) for every index: (len(indices), count) float64.

    A row depends only on (seed, epoch, index), so that a crop is the same in any worker, batch or resumed run. One call
    serves a batch: a numpy generator for each crop would take longer than reading it. The random bits are SplitMix64's
    (Steele et al., OOPSLA 2014), as a hash of the counters.
    """
    stream = np.array([seed & _MASK], dtype=np.uint64)
    for counter in (np.array([epoch]), indices[:, None], np.arange(count)[None, :]):
        stream = _mixed(_mixed(stream) + (counter.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN))
    return (stream >> np.uint64(11)) * 2.0**-53


def _mixed(bits: np.ndarray) -> np.ndarray:
    """SplitMix64's finaliser."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))


def pick(draws: np.ndarray, choices: np.ndarray | int) -> np.ndarray:
    """Turn draws in [0, 1) into integers in [0, choices)."""
    return np.minimum(draws * choices, np.asarray(choices) - 1).astype(np.int64)


@dataclass(frozen=True)
class SpecAugmentConfig:
    """Masks of a crop, drawn for each crop.

    Attributes:
        freq_masks: number of masks over mel bands.
        freq_width: the largest number of bands that a mask covers.
        time_masks: number of masks over frames.
        time_width: the largest number of frames that a mask covers.
        narrow_band: probability that the upper bands are masked, as a telephone cuts them off.
        narrow_band_width: number of these upper bands. Of 80 bands up to 7,600 Hz, 20 lie above 3,800 Hz.
    """

    freq_masks: int = bounded(0, 0, 100)
    freq_width: int = bounded(8, 0, 1000)
    time_masks: int = bounded(0, 0, 100)
    time_width: int = bounded(10, 0, 100_000)
    narrow_band: float = bounded(0.0, 0, 1)
    narrow_band_width: int = bounded(20, 0, 1000)

    @property
    def num_draws(self) -> int:
        """Random numbers per crop: width and place of each mask, and one for `narrow_band`."""
        return 2 * (self.freq_masks + self.time_masks) + (self.narrow_band > 0)


def spec_augment(draws: np.ndarray, frames: int, mels: int, config: SpecAugmentConfig) -> tuple[np.ndarray, np.ndarray]:
    """Choose the masks of crops: frames (B, frames) and mel bands (B, mels), bool.

    Widths are uniform in [0, width]. `draws` is (B, config.num_draws) in [0, 1). The caller replaces masked values by
    the mean of the crop in that band. Source: Park et al., SpecAugment, Interspeech 2019, section 2, without the time
    warp.
    """
    time, freq, narrow = np.split(draws, np.cumsum([2 * config.time_masks, 2 * config.freq_masks]), axis=1)
    bands = _masks(freq, mels, config.freq_width)
    if config.narrow_band > 0:
        bands |= (narrow < config.narrow_band) & (np.arange(mels) >= mels - config.narrow_band_width)
    return _masks(time, frames, config.time_width), bands


def _masks(draws: np.ndarray, size: int, width: int) -> np.ndarray:
    """Masks over [0, size) for each row, from two draws per mask: its width and its place."""
    widths = pick(draws[:, 0::2, None], min(width, size) + 1)
    starts = pick(draws[:, 1::2, None], size - widths + 1)
    places = np.arange(size)
    return ((starts <= places) & (places < starts + widths)).any(axis=1)


@dataclass(frozen=True)
class AugmentConfig:
    """Augmented copies of the training set, which stage 2 makes.

    Attributes:
        speeds: a copy is made at each speed, such as 0.9 and 1.1. Its speakers count as new speakers.
        copies: a copy of each kind is made at each speed, including 1. Its speakers are those of the original.
        share: share of the utterances in each of `copies`.
        seed: seed of the random choices for `copies`. The seed of the experiment has no effect on them.
    """

    speeds: tuple[float, ...] = bounded((), 0.1, 10)
    copies: tuple[Literal["reverb", "noise", "music", "babble"], ...] = ()
    share: float = bounded(1.0, 1e-6, 1)
    seed: int = bounded(0, 0, LARGEST_SEED)

    def __post_init__(self) -> None:
        if len(set(self.copies)) != len(self.copies):
            raise ValueError("expected copies, each once")
        if len({1.0, *self.speeds}) != len(self.speeds) + 1:
            raise ValueError("expected speeds, each once, without 1 (which is always there)")
