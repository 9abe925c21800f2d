"""Resample mono audio in blocks, so that the memory depends on neither rate nor length."""

from collections.abc import Iterable, Iterator

import numpy as np
import soxr

from wespeaker_lite.core.errors import InputError

RATES = range(1, 384_001)  # Hz
_BLOCK = 1 << 18  # samples per step, at the higher of the two rates


def check_rate(name: str, rate: int) -> None:
    """Raise InputError, beginning with `name`, if the sampling rate is not in RATES."""
    if rate not in RATES:
        raise InputError(f"{name}: a sampling rate of {rate} Hz; expected {RATES[0]} to {RATES[-1]} Hz")


def resampled(blocks: Iterable[np.ndarray], rate: int, wanted: int) -> Iterator[np.ndarray]:
    """Convert consecutive blocks (n,) float32 from `rate` to `wanted` Hz.

    The result has round(n * wanted / rate) samples and does not depend on the block sizes. The filter is soxr's HQ:
    linear phase, and flat up to nine tenths of the lower band.

    Raises:
        InputError: if a rate is not in RATES.
    """
    for one in (rate, wanted):
        check_rate("audio", one)
    return iter(blocks) if rate == wanted else _resampled(blocks, rate, wanted)


def _resampled(blocks: Iterable[np.ndarray], rate: int, wanted: int) -> Iterator[np.ndarray]:
    stream = soxr.ResampleStream(rate, wanted, num_channels=1, dtype="float32", quality="HQ")
    size = max(1, _BLOCK * rate // max(rate, wanted))
    for block in blocks:
        for first in range(0, len(block), size):
            yield stream.resample_chunk(np.ascontiguousarray(block[first : first + size], np.float32))
    yield stream.resample_chunk(np.empty(0, np.float32), last=True)


def equal_parts(blocks: Iterable[np.ndarray], size: int, count: int) -> Iterator[np.ndarray]:
    """Split consecutive blocks, `size` samples in all, into `count` parts whose sizes differ by at most one sample."""
    waiting, part = np.empty(0, np.float32), 0
    for block in blocks:
        waiting = np.concatenate([waiting, block])
        while part < count - 1 and len(waiting) >= (wanted := size * (part + 1) // count - size * part // count):
            yield waiting[:wanted]
            waiting, part = waiting[wanted:], part + 1
    if len(waiting):
        yield waiting


def joined(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """Join blocks: (n,) float32."""
    several = list(blocks)
    return several[0] if len(several) == 1 else np.concatenate([np.empty(0, np.float32), *several])
