"""Noise and reverberation on crops, computed from the energies of mel bands, without audio.

The powers of independent signals add: noise is mixed as log(exp(x) + g exp(n)), and reverberation adds decaying
energies of earlier frames. The bits of a float32, read as an integer, approximate its logarithm with an error of at
most 0.086 bits (Mitchell 1962). The inverse is Schraudolph's exponential (1999). So an energy needs one integer product
per byte, and a logarithm none. The errors of both cancel where one signal dominates. They are at most 0.06 nats where
two signals are equal, which is less than the step of a byte. Exact functions would take four times as long.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Literal, Self

import numpy as np
import torch

from wespeaker_lite.core.config import bounded

NOISE_KINDS = ("noise", "music", "speech")  # as MUSAN's folders are called
NUM_DRAWS = 4  # one for the kind; then clip, start and ratio of noise, or T60 and ratio of reverberation

NAT = 2**23 / math.log(2)  # a nat, in units of the integer that is a float32's bits
LOG_OF_BITS_0 = -127 * math.log(2)
_ONE = 127 << 23  # the bits of 1.0
_QUIET = 1e4  # the smallest power in 16-bit audio: anything below is silence and is not amplified
_FAINT = 1e-4  # a tail that has decayed to less is omitted


@dataclass(frozen=True)
class SnrConfig:
    """Ratios of speech to noise. The defaults are wespeaker's.

    Attributes:
        noise: lowest and highest ratio for clips of `noise`, in dB.
        music: lowest and highest ratio for clips of `music`, in dB.
        speech: lowest and highest ratio for clips of `speech`, in dB.
    """

    noise: tuple[float, ...] = bounded((0.0, 15.0), -50, 50)
    music: tuple[float, ...] = bounded((5.0, 15.0), -50, 50)
    speech: tuple[float, ...] = bounded((5.0, 30.0), -50, 50)

    def __post_init__(self) -> None:
        for kind in NOISE_KINDS:
            check_range(f"snr.{kind}", getattr(self, kind))


@dataclass(frozen=True)
class NoiseConfig:
    """Noise that is mixed into crops in the mel domain.

    Attributes:
        probability: probability that a crop gets noise.
        kinds: folders of MUSAN that clips are drawn from, one clip for each crop.
        snr: ratio of speech to noise for each kind.
    """

    probability: float = bounded(0.0, 0, 1)
    kinds: tuple[Literal["noise", "music", "speech"], ...] = NOISE_KINDS
    snr: SnrConfig = field(default_factory=SnrConfig)

    def __post_init__(self) -> None:
        if not self.kinds:
            raise ValueError("expected kinds of noise")


@dataclass(frozen=True)
class ReverbConfig:
    """Reverberation that is simulated on crops in the mel domain.

    The defaults are about what Sabine's formula and the critical distance give for the small and medium rooms of
    RIRS_NOISES (1 to 30 m wide, absorption 0.2 to 0.8; Ko et al. 2017).

    Attributes:
        probability: probability that a crop gets reverberation.
        t60: lowest and highest reverberation time T60, in seconds.
        drr: lowest and highest ratio of direct to reverberant energy, in dB.
    """

    probability: float = bounded(0.0, 0, 1)
    t60: tuple[float, ...] = bounded((0.1, 0.8), 0.01, 10)
    drr: tuple[float, ...] = bounded((-6.0, 6.0), -50, 50)

    def __post_init__(self) -> None:
        check_range("t60", self.t60)
        check_range("drr", self.drr)


def check_range(name: str, values: tuple[float, ...]) -> None:
    """Raise ValueError unless `values` are two numbers in ascending order."""
    if len(values) != 2 or values[0] > values[1]:
        raise ValueError(f"{name}: expected two numbers in ascending order, found {list(values)}")


class Tensors:
    """A dataclass of tensors, of other such dataclasses and of plain values. It is moved to a device as a whole."""

    def with_each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        """A copy with `change` applied to every tensor."""
        return type(self)(**{entry.name: _changed(getattr(self, entry.name), change) for entry in fields(self)})

    def __getstate__(self) -> dict[str, object]:
        """Send bytes in shared memory and the rest as arrays, because each shared tensor costs a file handle."""
        small = self.with_each(lambda tensor: tensor if tensor.dtype == torch.uint8 else tensor.numpy())
        return {entry.name: getattr(small, entry.name) for entry in fields(self)}

    def __setstate__(self, state: dict[str, object]) -> None:
        for name, value in state.items():
            setattr(self, name, torch.from_numpy(value) if isinstance(value, np.ndarray) else value)


def _changed(value: object, change: Callable[[torch.Tensor], torch.Tensor]) -> object:
    if isinstance(value, Tensors):
        return value.with_each(change)
    return change(value) if torch.is_tensor(value) else value


def energies_of(raw: torch.Tensor, low: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Approximate exp(low + step * raw): bytes (B, T, F), low and step (B, 1, 1) -> (B, T, F) float32."""
    bits = raw.to(torch.int32).mul_(_in_bits(step)).add_(_in_bits(low) + _ONE)
    return bits.view(torch.float32)


def _in_bits(nats: torch.Tensor) -> torch.Tensor:
    return (nats * NAT).round().int()


@dataclass
class Noise(Tensors):
    """Noise for crops: (N, T, F) bytes with low and step (N, 1, 1), snr (N, 1, 1) in dB, and weights of bands (F,)."""

    raw: torch.Tensor
    low: torch.Tensor
    step: torch.Tensor
    snr: torch.Tensor
    band_weights: torch.Tensor

    def add_to(self, energies: torch.Tensor, rows: slice) -> torch.Tensor:
        """Add the noise of these rows to energies (rows, T, F), in place, scaled to its SNR.

        The SNR is a ratio of mean powers over the crop, as in wespeaker's mixing of waveforms. Powers are weighted sums
        over bands: the weights of `audio.fbank.acoustics_of` undo pre-emphasis, without which the SNR of speech would
        be up to 15 dB off.
        """
        noise = energies_of(self.raw[rows], self.low[rows], self.step[rows])
        ratio = self._power(energies) / self._power(noise).clamp_min(_QUIET)
        gain = ratio.log() - self.snr[rows] * (math.log(10) / 10)
        noise.view(torch.int32).add_(_in_bits(gain))
        return energies.add_(noise)

    def _power(self, energies: torch.Tensor) -> torch.Tensor:
        return (energies.mean(dim=1, keepdim=True) * self.band_weights).sum(dim=2, keepdim=True)


@dataclass
class Reverb(Tensors):
    """Reverberation of crops: decay of energy per frame, and energy of the tail relative to the direct sound.

    Both are (R, 1, 1). `slowest` is the largest decay factor that can be drawn.
    """

    decay: torch.Tensor
    level: torch.Tensor
    slowest: float

    def add_to(self, energies: torch.Tensor, rows: slice) -> torch.Tensor:
        """Add the tails of these rows to energies (rows, T, F): y_t = x_t + level (1 - a) sum_k a^k x_{t-k}, k >= 0.

        The sum is computed by doubling: a sum of 2n terms is two sums of n terms, n frames apart. Source: Polack's
        model of an impulse response as decaying noise, by its energy per frame.
        """
        decay = self.decay[rows]
        tail = energies * (self.level[rows] * (1 - decay))
        doubled = torch.empty_like(tail)
        span = 1
        while span < tail.shape[1] and self.slowest**span > _FAINT:
            doubled[:, :span] = tail[:, :span]
            torch.addcmul(tail[:, span:], tail[:, :-span], decay**span, out=doubled[:, span:])
            tail, doubled, span = doubled, tail, 2 * span
        return energies.add_(tail)


def draw_reverb(draws: np.ndarray, config: ReverbConfig, frame_seconds: float) -> Reverb:
    """Draw the reverberation of R crops from random numbers (R, 2) in [0, 1)."""
    t60, drr = _between(draws[:, 0], *config.t60), _between(draws[:, 1], *config.drr)
    columns = 10 ** (-6 * frame_seconds / t60), 10 ** (-drr / 10)
    decay, level = (torch.from_numpy(column).float().view(-1, 1, 1) for column in columns)
    return Reverb(decay, level, 10 ** (-6 * frame_seconds / config.t60[1]))


def draw_snr(draws: np.ndarray, kinds: np.ndarray, config: SnrConfig) -> torch.Tensor:
    """Draw SNRs in dB (N, 1, 1) from random numbers (N,) in [0, 1) and kinds of noise (N,), indices of NOISE_KINDS."""
    low, high = np.array([getattr(config, kind) for kind in NOISE_KINDS])[kinds].T
    return torch.from_numpy(_between(draws, low, high)).float().view(-1, 1, 1)


def _between(draws: np.ndarray, low: np.ndarray | float, high: np.ndarray | float) -> np.ndarray:
    return low + draws * (high - low)
