"""Noise and reverberation of crops, worked on the energies of their mel bands: no audio is touched.

Powers of independent sounds add, so that noise is mixed as log(exp(x) + g exp(n)), and reverberation is a tail of
decaying energies. The bits of a float32, read as an integer, are its logarithm but for 0.086 bits at most (Mitchell
1962), and the way back is Schraudolph's exponential (1999): bytes become energies by one integer product, and energies
logs by none. What this errs by cancels on the way to and fro where one sound is alone, and is at most 0.06 nats where
two are alike, less than the step of the bytes; exact exponentials and logarithms would cost four times as much.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Literal, Self

import numpy as np
import torch

from wespeaker_lite.core.config import bounded

NOISE_KINDS = ("noise", "music", "speech")  # as MUSAN's folders are called
NUM_DRAWS = 4  # which distortion; of noise clip, start and ratio; of reverberation its time and its ratio

NAT = 2**23 / math.log(2)  # a nat, in steps of the bits of a float32
LOG_OF_BITS_0 = -127 * math.log(2)
_ONE = 127 << 23  # the bits of 1.0
_QUIET = 1e4  # power of the least sound that 16 bits hold: what is less is silence, which no gain makes a noise
_FAINT = 1e-4  # of a tail: what has decayed to less is left out


@dataclass(frozen=True)
class SnrConfig:
    """Ratios of speech to noise; the defaults are wespeaker's.

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
        probability: that a crop gets noise.
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
        probability: that a crop gets reverberation.
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
    """Raise ValueError unless `values` are two rising numbers."""
    if len(values) != 2 or values[0] > values[1]:
        raise ValueError(f"{name}: expected two rising numbers, found {list(values)}")


class Tensors:
    """A dataclass of tensors, of such dataclasses, and of values, that moves to a device or a process as a whole."""

    def with_each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Self:
        """The same with every tensor changed."""
        return type(self)(**{entry.name: _changed(getattr(self, entry.name), change) for entry in fields(self)})

    def __getstate__(self) -> dict[str, object]:
        """To another process go the bytes in shared memory, and the rest as arrays: a tensor costs a file handle."""
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
    """exp(low + step * raw), near enough: bytes (B, T, F), low and step (B, 1, 1) -> (B, T, F) float32."""
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
        """Add the noise of these rows to energies (rows, T, F), in place, scaled to its ratio of mean powers.

        Mean powers are over the crop, as in the waveform way of wespeaker, and over bands by their weights: those of
        `features.fbank.acoustics_of` undo pre-emphasis, without which a ratio would be up to 15 dB off for speech.
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
    """Reverberation of crops: decay of energy from frame to frame, and energy of the tail over the direct sound's.

    Both are (R, 1, 1); `slowest` is the greatest decay that is ever drawn.
    """

    decay: torch.Tensor
    level: torch.Tensor
    slowest: float

    def add_to(self, energies: torch.Tensor, rows: slice) -> torch.Tensor:
        """Add the tails of these rows to energies (rows, T, F): y_t = x_t + level (1 - a) sum_k a^k x_{t-k}, k >= 0.

        The sum over frames is made by doubling: of 2n terms from two sums of n, n frames apart. Source: the energy of a
        decaying noise as an impulse response (Polack's model), taken by frames.
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
    """Reverberation of R crops from draws (R, 2) in [0, 1)."""
    t60, drr = _between(draws[:, 0], *config.t60), _between(draws[:, 1], *config.drr)
    columns = 10 ** (-6 * frame_seconds / t60), 10 ** (-drr / 10)
    decay, level = (torch.from_numpy(column).float().view(-1, 1, 1) for column in columns)
    return Reverb(decay, level, 10 ** (-6 * frame_seconds / config.t60[1]))


def draw_snr(draws: np.ndarray, kinds: np.ndarray, config: SnrConfig) -> torch.Tensor:
    """Ratios in dB (N, 1, 1) from draws (N,) in [0, 1) and the kinds of noise (N,), as indices of NOISE_KINDS."""
    low, high = np.array([getattr(config, kind) for kind in NOISE_KINDS])[kinds].T
    return torch.from_numpy(_between(draws, low, high)).float().view(-1, 1, 1)


def _between(draws: np.ndarray, low: np.ndarray | float, high: np.ndarray | float) -> np.ndarray:
    return low + draws * (high - low)
