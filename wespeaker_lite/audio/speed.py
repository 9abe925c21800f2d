"""Speed perturbation: audio at another speed, and the ids of such copies."""

import re

import numpy as np

from wespeaker_lite.audio.resample import joined, resampled
from wespeaker_lite.core.errors import InputError

_SPEED_PREFIX = re.compile(r"^sp\d+(\.\d+)?(e[-+]\d+)?-")


def speed_perturb(samples: np.ndarray, factor: float, sample_rate: int = 16000) -> np.ndarray:
    """Play samples (n,) `factor` times as fast, which also changes the pitch, as sox's `speed`: (n / factor,) float32.

    Raises:
        InputError: as `rate_of_speed`.
    """
    return joined(resampled([samples], rate_of_speed(factor, sample_rate), sample_rate))


def rate_of_speed(factor: float, sample_rate: int) -> int:
    """The rate to resample from, to `sample_rate`, so that audio is `factor` times as fast.

    Raises:
        InputError: if the factor is not positive or does not lead to a whole sampling rate.
    """
    source_rate = round(sample_rate * factor)
    if source_rate < 1 or abs(source_rate - sample_rate * factor) > 1e-6:
        raise InputError(f"speed {factor}: {factor} x {sample_rate} Hz is not a whole number of Hz; use fewer decimals")
    return source_rate


def speed_prefix(factor: float) -> str:
    """The prefix of a copy's utterance and speaker ids: sp0.9- for speed 0.9, and none for speed 1."""
    return "" if factor == 1 else f"sp{factor:g}-"


def unperturbed(name: str) -> str:
    """The id without a prefix of `speed_prefix`."""
    return _SPEED_PREFIX.sub("", name)
