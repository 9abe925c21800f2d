"""Log mel filterbanks as Kaldi computes them."""

import functools
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torchaudio.compliance.kaldi import get_mel_banks

from wespeaker_lite.core.config import bounded
from wespeaker_lite.core.errors import InputError

_PREEMPHASIS = 0.97
FLOOR = torch.finfo(torch.float32).eps  # of energies, before the logarithm
_FRAMES = 8192  # computed at once, in 60 MB
_WINDOWS = {
    "povey": lambda size: torch.hann_window(size, periodic=False) ** 0.85,
    "hanning": lambda size: torch.hann_window(size, periodic=False),
    "hamming": lambda size: torch.hamming_window(size, periodic=False),
    "rectangular": torch.ones,
}


@dataclass(frozen=True)
class FbankConfig:
    """Kaldi's options of the same names.

    Attributes:
        sample_rate: sampling rate in Hz. Audio of another rate is resampled.
        num_mels: number of mel bands.
        frame_length_ms: length of a frame in milliseconds.
        frame_shift_ms: time from the start of a frame to the start of the next, in milliseconds.
        window: `povey`, `hanning`, `hamming` or `rectangular`.
        dither: standard deviation of the noise that is added to 16-bit samples. 0 for none.
        low_freq: lower end of the mel bands in Hz.
        high_freq: upper end of the mel bands in Hz. 0 or less is relative to the Nyquist frequency.
        snip_edges: use only whole frames. Otherwise frames are centred in each shift, and the signal is mirrored at
            its ends. sherpa-onnx, which runs speaker models on phones, needs `false`, and `high_freq: -400`.
    """

    sample_rate: int = bounded(16000, 1000, 384_000)
    num_mels: int = bounded(80, 4, 1000)
    frame_length_ms: float = bounded(25.0, 0.1, 10_000)
    frame_shift_ms: float = bounded(10.0, 0.1, 10_000)
    window: str = "povey"
    dither: float = bounded(0.0, 0, 1000)
    low_freq: float = bounded(20.0, 0, 192_000)
    high_freq: float = bounded(0.0, -192_000, 192_000)
    snip_edges: bool = True

    def __post_init__(self) -> None:
        nyquist = self.sample_rate / 2
        top = self.high_freq if self.high_freq > 0 else nyquist + self.high_freq
        if not 0 <= self.low_freq < top <= nyquist:
            raise ValueError(f"mel bands from {self.low_freq} to {top} Hz do not lie between 0 and {nyquist:g} Hz")
        if self.window not in _WINDOWS:
            raise ValueError(f"window {self.window!r} is none of {', '.join(_WINDOWS)}")
        if self.frame_shift < 1 or not 2 <= self.frame_length <= 1 << 16:
            raise ValueError("expected frames of 2 to 65,536 samples, and a shift of 1 or more")
        if (mel_banks(self).sum(0) == 0).any():
            raise ValueError(f"{self.num_mels} mel bands are too narrow for frames of {self.frame_length_ms} ms")

    @property
    def frame_length(self) -> int:
        """Samples in a frame."""
        return int(self.sample_rate * self.frame_length_ms * 0.001)

    @property
    def frame_shift(self) -> int:
        """Samples from the start of a frame to the start of the next."""
        return int(self.sample_rate * self.frame_shift_ms * 0.001)

    @property
    def overhang(self) -> int:
        """Samples of a centred frame before the start of its shift."""
        return self.frame_length // 2 - self.frame_shift // 2

    @property
    def fft_size(self) -> int:
        """The smallest power of two that is not below the frame length."""
        return 1 << (self.frame_length - 1).bit_length()


def fbank(samples: np.ndarray, config: FbankConfig) -> np.ndarray:
    """Compute log mel energies of samples (n,) in [-1, 1], which are scaled to 16-bit range: (T, num_mels) float32.

    T is 1 + (n - frame_length) // frame_shift with `snip_edges`, and (n + frame_shift // 2) // frame_shift without. The
    values are those of torchaudio.compliance.kaldi.fbank, and so of Kaldi's compute-fbank-feats. It takes about half
    the time, because window and mel bands are computed once, and no square root is. The samples determine the seed of
    the dither, so that features are the same in every run.

    Raises:
        InputError: if there are fewer samples than in a frame.
    """
    return np.concatenate(list(fbank_blocks([samples], config)))


def fbank_blocks(blocks: Iterable[np.ndarray], config: FbankConfig) -> Iterator[np.ndarray]:
    """Compute the features of consecutive blocks of samples (n,): the frames of `fbank`, in blocks (t, num_mels).

    The values do not depend on the block sizes, and the memory does not depend on the number of blocks.

    Raises:
        InputError: at the end, if all samples are fewer than in a frame.
    """
    length, step = config.frame_length, _FRAMES * config.frame_shift
    many = step + 2 * length  # with more, enough samples remain for the mirror image at the end
    buffer, total, begun = np.empty(0, np.float32), 0, False
    for block in blocks:
        buffer, total = np.concatenate([buffer, block]) if len(buffer) else block, total + len(block)
        while len(buffer) > many:
            if not begun:
                buffer, begun = _mirrored_start(buffer, config), True
            yield _log_mel(buffer[: step - config.frame_shift + length], config)
            buffer = buffer[step:]
    if total < length:
        raise InputError(f"too short for one frame: {total} of {length} samples")
    buffer = _mirrored_end(buffer if begun else _mirrored_start(buffer, config), total, config)
    while len(buffer) >= length:
        yield _log_mel(buffer[: step - config.frame_shift + length], config)
        buffer = buffer[step:]


def _log_mel(samples: np.ndarray, config: FbankConfig) -> np.ndarray:
    """Compute the features of all whole frames in samples (n,): (t, num_mels)."""
    scaled = torch.from_numpy(np.multiply(samples, 32768.0, dtype=np.float32))
    frames = scaled.unfold(0, config.frame_length, config.frame_shift)
    if config.dither:
        generator = torch.Generator().manual_seed(zlib.crc32(samples.tobytes()))
        frames = frames + config.dither * torch.randn(frames.shape, generator=generator)
    spectrum = torch.fft.rfft(windowed_frames(frames, config))
    power = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)
    return (power @ mel_banks(config)).clamp_min_(FLOOR).log_().numpy()


def _mirrored_start(samples: np.ndarray, config: FbankConfig) -> np.ndarray:
    """Without `snip_edges`, put the mirror image of the first samples before them, so that frames are centred."""
    before = 0 if config.snip_edges else config.overhang
    return np.concatenate([samples[:before][::-1], samples]) if before > 0 else samples[-before:]


def _mirrored_end(samples: np.ndarray, total: int, config: FbankConfig) -> np.ndarray:
    """Without `snip_edges`, append the mirror image of the last samples, as far as the last frame needs it."""
    if config.snip_edges:
        return samples
    count = (total + config.frame_shift // 2) // config.frame_shift
    after = (count - 1) * config.frame_shift + config.frame_length - config.overhang - total
    return np.concatenate([samples, samples[len(samples) - after :][::-1]]) if after > 0 else samples


def windowed_frames(frames: torch.Tensor, config: FbankConfig) -> torch.Tensor:
    """Subtract the mean of each frame, pre-emphasise and window it: (T, frame_length) -> (T, fft_size).

    Pre-emphasis scales a mean by (1 - 0.97). So the scaled mean is subtracted after it, which needs fewer passes.
    """
    rest = 1 - _PREEMPHASIS
    padded = frames.new_zeros(len(frames), config.fft_size)
    windowed = padded[:, : config.frame_length]
    torch.mul(frames[:, :1], rest, out=windowed[:, :1])  # the first sample is used as the one before it
    torch.sub(frames[:, 1:], frames[:, :-1], alpha=_PREEMPHASIS, out=windowed[:, 1:])
    windowed.sub_(frames.mean(dim=1, keepdim=True), alpha=rest).mul_(_window(config))
    return padded


class Acoustics(NamedTuple):
    """Acoustic properties of features: seconds per frame shift, and the weight of each mel band's energy in the power
    of the signal, (F,). By default, all weights are equal."""

    frame_seconds: float = 0.01
    band_weights: np.ndarray | None = None


def acoustics_of(config: FbankConfig) -> Acoustics:
    """The acoustic properties of features with this config. The weights undo pre-emphasis."""
    banks = mel_banks(config).double()
    circle = torch.linspace(0, torch.pi, config.fft_size // 2 + 1, dtype=torch.float64)
    gain = 1 + _PREEMPHASIS**2 - 2 * _PREEMPHASIS * circle.cos()  # on power, of y_t = x_t - 0.97 x_{t-1}
    weights = (banks / gain[:, None]).sum(0) / banks.sum(0)
    return Acoustics(config.frame_shift / config.sample_rate, weights.numpy())


@functools.cache
def _window(config: FbankConfig) -> torch.Tensor:
    return _WINDOWS[config.window](config.frame_length)


@functools.cache
def mel_banks(config: FbankConfig) -> torch.Tensor:
    """Weights of the mel bands: (fft_size / 2 + 1, num_mels)."""
    banks, _ = get_mel_banks(
        config.num_mels, config.fft_size, float(config.sample_rate), config.low_freq, config.high_freq,
        vtln_low=100.0, vtln_high=-500.0, vtln_warp_factor=1.0,
    )  # fmt: skip
    return torch.nn.functional.pad(banks, (0, 1)).T.contiguous()
