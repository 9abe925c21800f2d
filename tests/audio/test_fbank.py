"""Fbanks against torchaudio and a naive float64 version."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torchaudio.compliance import kaldi

from wespeaker_lite.audio.fbank import FbankConfig, acoustics_of, fbank, fbank_blocks
from wespeaker_lite.audio.reading import read_audio
from wespeaker_lite.core.config import from_mapping
from wespeaker_lite.core.errors import InputError


def noise(size: int = 16000, scale: float = 0.1, offset: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(size).normal(offset, scale, size)).astype(np.float32)


def torchaudio_fbank(samples: np.ndarray, config: FbankConfig) -> np.ndarray:
    return kaldi.fbank(
        torch.from_numpy(samples)[None] * 32768, num_mel_bins=config.num_mels, dither=0.0, window_type=config.window,
        frame_length=config.frame_length_ms, frame_shift=config.frame_shift_ms, low_freq=config.low_freq,
        high_freq=config.high_freq, sample_frequency=config.sample_rate, snip_edges=config.snip_edges,
    ).numpy()  # fmt: skip


def naive_fbank(samples: np.ndarray) -> np.ndarray:
    """Kaldi's defaults at 16 kHz with 80 bands, frame by frame in float64."""
    samples = samples.astype(np.float64) * 32768
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)) ** 0.85
    mel = lambda hertz: 1127 * np.log(1 + hertz / 700)  # noqa: E731
    edges = np.linspace(mel(20), mel(8000), 82)
    bins = mel(np.arange(256) * 16000 / 512)
    rows = []
    for start in range(0, len(samples) - 399, 160):
        frame = samples[start : start + 400] - samples[start : start + 400].mean()
        frame = frame - 0.97 * np.concatenate([frame[:1], frame[:-1]])
        power = np.abs(np.fft.rfft(frame * window, 512))[:256] ** 2
        rise = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
        fall = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
        rows.append(np.log(np.maximum(np.clip(np.minimum(rise, fall), 0, None) @ power, 2.0**-23)))
    return np.array(rows)


CONFIGS = [
    FbankConfig(),
    FbankConfig(num_mels=40, window="hamming"),
    FbankConfig(sample_rate=8000, num_mels=23, window="hanning"),
    FbankConfig(frame_length_ms=20, frame_shift_ms=8, window="rectangular", num_mels=64),
    FbankConfig(low_freq=100, high_freq=-400, num_mels=60),
    FbankConfig(high_freq=4000, frame_length_ms=32, num_mels=40),
    FbankConfig(high_freq=-400, snip_edges=False),
    FbankConfig(sample_rate=8000, num_mels=40, frame_length_ms=20, frame_shift_ms=12.5, snip_edges=False),
    FbankConfig(frame_length_ms=20, frame_shift_ms=30, snip_edges=False),
]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize(
    "samples", [noise(), noise(16001, 1e-4), noise(15999, 0.3, 0.5), noise(520, 0.2), noise(16079)]
)
def test_features_equal_those_of_torchaudio(config: FbankConfig, samples: np.ndarray) -> None:
    np.testing.assert_allclose(fbank(samples, config), torchaudio_fbank(samples, config), rtol=0, atol=3e-3)


def test_features_equal_a_naive_version_within_half_a_byte() -> None:
    samples = noise(32000)
    feats = fbank(samples, FbankConfig())
    np.testing.assert_allclose(feats, naive_fbank(samples), rtol=0, atol=2e-3)
    assert (feats.max() - feats.min()) / 255 / 2 > 5 * np.abs(feats - naive_fbank(samples)).max()


def test_features_of_real_speech_equal_those_of_torchaudio(shared_data: Path) -> None:
    for path in sorted((shared_data / "librispeech_clips").glob("*.opus"))[:3]:
        samples = read_audio(str(path), 16000)
        difference = np.abs(fbank(samples, FbankConfig()) - torchaudio_fbank(samples, FbankConfig()))
        assert difference.mean() < 1e-4
        assert difference.max() < 0.02


@pytest.mark.parametrize("config", [*CONFIGS, FbankConfig(dither=1.0)])
@pytest.mark.parametrize("size", [520, 16000, 16079, 40001])
def test_blocks_of_samples_give_the_same_features(
    config: FbankConfig, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = noise(size)
    at_once = fbank(samples, config)
    monkeypatch.setattr("wespeaker_lite.audio.fbank._FRAMES", 7)
    whole = fbank(samples, config)
    if not config.dither:
        np.testing.assert_allclose(
            whole, at_once, rtol=0, atol=1e-4
        )  # rounding of a matrix product depends on its shape
    for cut in (1, 163, 5000):
        blocks = [samples[first : first + cut] for first in range(0, size, cut)]
        features = list(fbank_blocks(blocks, config))
        assert max(map(len, features)) == min(7, len(whole))
        np.testing.assert_array_equal(np.concatenate(features), whole)


@pytest.mark.parametrize(("size", "frames"), [(400, 1), (559, 1), (560, 2), (16000, 98)])
def test_only_whole_frames_count(size: int, frames: int) -> None:
    feats = fbank(noise(size), FbankConfig())
    assert feats.shape == (frames, 80)
    assert feats.dtype == np.float32


def test_silence_is_floored() -> None:
    np.testing.assert_allclose(fbank(np.zeros(800, dtype=np.float32), FbankConfig()), np.log(2.0**-23), rtol=1e-6)


def test_less_than_a_frame_is_refused() -> None:
    with pytest.raises(InputError, match="too short for one frame: 399 of 400 samples"):
        fbank(noise(399), FbankConfig())


def test_samples_are_not_changed_and_may_be_a_view() -> None:
    samples = noise(32000)
    before = samples.copy()
    feats = fbank(samples[::2], FbankConfig())
    np.testing.assert_array_equal(samples, before)
    np.testing.assert_array_equal(feats, fbank(samples[::2].copy(), FbankConfig()))


def test_dither_lifts_silence_and_is_the_same_in_every_run() -> None:
    config = FbankConfig(dither=1.0)
    silence = np.zeros(160400, dtype=np.float32)
    feats = fbank(silence, config)
    np.testing.assert_array_equal(feats, fbank(silence, config))
    assert not np.array_equal(feats[0], feats[1])
    lifted = torch.randn(1001, 400, generator=torch.Generator().manual_seed(1)).flatten().numpy() / 32768
    expected = np.mean([fbank(row, FbankConfig())[0] for row in lifted.reshape(-1, 400)], axis=0)
    np.testing.assert_allclose(feats.mean(0), expected, atol=0.3)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"window": "povy"}, "window 'povy' is none of povey"),
        ({"frame_shift_ms": 0.1, "sample_rate": 8000}, "a shift of 1 or more"),
        ({"low_freq": 9000}, "from 9000.0 to 8000.0 Hz do not lie between 0 and 8000 Hz"),
        ({"high_freq": 9000.0}, "do not lie"),
        ({"num_mels": 3}, "num_mels: 3 does not lie in"),
        ({"frame_shift_ms": 0.0}, "frame_shift_ms: 0.0 does not lie in"),
        ({"num_mels": 200}, "200 mel bands are too narrow for frames of 25"),
    ],
)
def test_invalid_options_are_refused(options: dict, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        from_mapping(FbankConfig, options, "here")


@pytest.mark.parametrize("config", [FbankConfig(), FbankConfig(sample_rate=8000, num_mels=40, frame_shift_ms=8)])
def test_weighted_band_energies_estimate_the_power_of_a_sound(config: FbankConfig) -> None:
    rate = config.sample_rate
    time, white = np.arange(2 * rate) / rate, np.random.default_rng(0).normal(size=2 * rate)
    hertz = np.fft.rfftfreq(2 * rate, 1 / rate)
    dark = np.fft.irfft(np.fft.rfft(white) * (hertz > 80) / np.maximum(hertz, 80))
    sounds = [0.1 * white, dark / np.abs(dark).max(), 0.3 * np.sin(2 * np.pi * 300 * time)]
    acoustics = acoustics_of(config)
    assert acoustics.frame_seconds == config.frame_shift_ms / 1000

    def spread(weights: np.ndarray) -> float:
        """The range over the sounds, in dB, of the estimated power relative to the true power."""
        levels = [
            np.mean(np.exp(fbank(sound, config).astype(np.float64)) @ weights) / np.mean(sound**2) for sound in sounds
        ]
        return float(np.ptp(10 * np.log10(levels)))

    assert spread(acoustics.band_weights) < 0.7
    assert spread(np.ones(config.num_mels)) > 10
