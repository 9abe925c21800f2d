"""Speed perturbation: audio played faster or slower, and the ids of such copies."""

import re

import numpy as np

from wespeaker_lite.audio.resample import joined, resampled
from wespeaker_lite.core.errors import InputError

_SPEED_PREFIX = re.compile(r"^sp\d+(\.\d+)?(e[-+]\d+)?-")


def speed_perturb(samples: np.ndarray, factor: float, sample_rate: int = 16000) -> np.ndarray:
    """Play samples (n,) `factor` times as fast, pitch and all: (about n / factor,) float32, as sox's `speed`.

    Raises:
        InputError: as `rate_of_speed`.
    """
    return joined(resampled([samples], rate_of_speed(factor, sample_rate), sample_rate))


def rate_of_speed(factor: float, sample_rate: int) -> int:
    """The rate from which samples are converted to `sample_rate`, to be played `factor` times as fast.

    Raises:
        InputError: where the factor is not positive or does not lead to a whole sampling rate.
    """
    source_rate = round(sample_rate * factor)
    if source_rate < 1 or abs(source_rate - sample_rate * factor) > 1e-6:
        raise InputError(f"speed {factor}: {factor} x {sample_rate} Hz is not a whole number of Hz; use fewer decimals")
    return source_rate


def speed_prefix(factor: float) -> str:
    """What stands before the ids of a copy, of utterances and speakers alike: sp0.9-, and nothing at speed 1."""
    return "" if factor == 1 else f"sp{factor:g}-"


def unperturbed(name: str) -> str:
    """The id at its own speed: what `speed_prefix` put before it is taken away."""
    return _SPEED_PREFIX.sub("", name)
