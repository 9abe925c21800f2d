"""The error of noise and reverberation in the mel domain compared with waveforms, and the cost of both.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.augmentation [--speech FOLDER] [--noise FOLDER] [--crops 200]

Crops of 2 s are augmented in both ways, with the same part of a noise at the same SNR, or with the same reverberation
(T60 and direct-to-reverberant ratio; the waveform's impulse response is decaying noise). Distances are means of
|difference| of log mel energies after mean subtraction. They are printed with the distance between clean and augmented
crops, and their ratio. `exact` is the mel domain without bytes and fast logarithms. Its remaining error is due to
phases, and to impulse responses that do not decay smoothly: compare the distance between two responses of the same T60
and ratio. `bands alike` has an SNR that does not undo pre-emphasis. Without folders, the speech is simulated, with
noises of several colours. Times are medians of CPU seconds, with features; the two ways take turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from wespeaker_lite.audio.fbank import FbankConfig, acoustics_of, fbank
from wespeaker_lite.audio.reading import read_audio
from wespeaker_lite.corpora.audio_files import audio_below
from wespeaker_lite.corpora.augmented_copies import at_snr, reverberated, simulated_response
from wespeaker_lite.corpora.simulation import make_session, make_speaker, simulate_utterance
from wespeaker_lite.data.mel_augmentation import NAT, Noise, Reverb, ReverbConfig, energies_of

RATE, FRAMES = 16000, 200
SAMPLES = (FRAMES - 1) * RATE // 100 + RATE // 40
CONFIG = FbankConfig()
WEIGHTS = acoustics_of(CONFIG).band_weights
BLOCK = 32


def crops_of(sounds: list[np.ndarray], count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Parts of crop length, none silent. Shorter sounds are repeated."""
    crops: list[np.ndarray] = []
    while len(crops) < count:
        sound = sounds[rng.integers(len(sounds))]
        start = rng.integers(max(1, len(sound) - SAMPLES + 1))
        crop = np.resize(sound[start : start + SAMPLES], SAMPLES)
        if np.abs(crop).max() > 1e-3:
            crops.append(crop)
    return crops


def simulated_speech(rng: np.random.Generator) -> list[np.ndarray]:
    return [simulate_utterance(make_speaker(0, number), make_session(rng), rng) for number in range(20)]


def coloured_noise(rng: np.random.Generator) -> list[np.ndarray]:
    """Noise from white to brown above 50 Hz, continuous or in bursts."""
    sounds = []
    hertz = np.fft.rfftfreq(5 * RATE, 1 / RATE)
    for tilt in (0.0, 0.5, 1.0):
        spectrum = np.fft.rfft(rng.standard_normal(5 * RATE)) * (hertz > 50) / np.maximum(hertz, 50) ** tilt
        steady = np.fft.irfft(spectrum)
        bursts = steady * (1 + np.sin(np.arange(5 * RATE) / RATE * 2 * np.pi * 3))
        sounds += [sound / np.abs(sound).max() / 2 for sound in (steady, bursts)]
    return [sound.astype(np.float32) for sound in sounds]


def as_bytes(feats: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features as in arks: bytes (N, T, F), low and step (N, 1, 1)."""
    stack = torch.from_numpy(np.stack(feats))
    low, high = stack.amin((1, 2), keepdim=True), stack.amax((1, 2), keepdim=True)
    step = (high - low) / 255
    return ((stack - low) / step).round().to(torch.uint8), low, step


def decoded(energies: torch.Tensor) -> np.ndarray:
    return (energies.view(torch.int32).float() / NAT).numpy()


def centred(feats: np.ndarray) -> np.ndarray:
    return feats - feats.mean(axis=1, keepdims=True)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(centred(one) - centred(other)).mean())


def report(name: str, clean: np.ndarray, wave: np.ndarray, ways: dict[str, np.ndarray]) -> None:
    moved = distance(clean, wave)
    print(f"{name:18} clean to wave {moved:.3f}", end="")
    for way, feats in ways.items():
        apart = distance(feats, wave)
        print(f"; {way} to wave {apart:.3f} ({100 * apart / moved:.0f} %)", end="")
    print(flush=True)


def mel_noise(speech: list[np.ndarray], noises: list[np.ndarray], snrs: np.ndarray) -> np.ndarray:
    raw, low, step = as_bytes(speech)
    noise = Noise(*as_bytes(noises), torch.from_numpy(snrs).float().view(-1, 1, 1), torch.from_numpy(WEIGHTS).float())
    return decoded(noise.add_to(energies_of(raw, low, step), slice(0, len(raw))))


def exact_noise(speech: np.ndarray, noises: np.ndarray, snrs: np.ndarray, weights: np.ndarray = WEIGHTS) -> np.ndarray:
    speech, noises = np.exp(speech.astype(np.float64)), np.exp(noises.astype(np.float64))
    gain = ((speech @ weights).mean(1) / (noises @ weights).mean(1)) / 10 ** (snrs / 10)
    return np.log(speech + gain[:, None, None] * noises)


def compare_noise(speech: list[np.ndarray], noises: list[np.ndarray], rng: np.random.Generator) -> None:
    clean, alone = (np.stack([fbank(wave, CONFIG) for wave in waves]) for waves in (speech, noises))
    for low, high in ((0, 5), (5, 10), (10, 15)):
        snrs = rng.uniform(low, high, len(speech))
        triples = zip(speech, noises, snrs, strict=True)
        mixed = np.stack([fbank((wave + at_snr(noise, wave, snr)), CONFIG) for wave, noise, snr in triples])
        ways = {
            "mel": mel_noise(list(clean), list(alone), snrs),
            "exact": exact_noise(clean, alone, snrs),
            "exact, bands alike": exact_noise(clean, alone, snrs, np.ones_like(WEIGHTS)),
        }
        report(f"noise {low} to {high} dB", clean, mixed, ways)


def mel_room(speech: list[np.ndarray], t60: np.ndarray, drr: np.ndarray) -> np.ndarray:
    raw, low, step = as_bytes(speech)
    decay, level = 10 ** (-6 * 0.01 / t60), 10 ** (-drr / 10)
    columns = [torch.from_numpy(column).float().view(-1, 1, 1) for column in (decay, level)]
    return decoded(Reverb(*columns, float(decay.max())).add_to(energies_of(raw, low, step), slice(0, len(raw))))


def exact_room(speech: np.ndarray, t60: np.ndarray, drr: np.ndarray) -> np.ndarray:
    decay, level = 10 ** (-6 * 0.01 / t60)[:, None], 10 ** (-drr / 10)[:, None]
    energies, tail, heard = np.exp(speech.astype(np.float64)), 0.0, []
    for frame in range(FRAMES):
        tail = decay * tail + level * (1 - decay) * energies[:, frame]
        heard.append(np.log(energies[:, frame] + tail))
    return np.stack(heard, axis=1)


def compare_rooms(speech: list[np.ndarray], rng: np.random.Generator) -> None:
    clean = np.stack([fbank(wave, CONFIG) for wave in speech])
    t60, drr = (rng.uniform(*low_and_high, len(speech)) for low_and_high in (ReverbConfig.t60, ReverbConfig.drr))

    def heard() -> np.ndarray:
        drawn = zip(speech, t60, drr, strict=True)
        waves = [reverberated(wave, simulated_response(*room, rng, RATE)) for wave, *room in drawn]
        return np.stack([fbank(wave, CONFIG) for wave in waves])

    wave = heard()
    ways = {"mel": mel_room(list(clean), t60, drr), "exact": exact_room(clean, t60, drr), "another such room": heard()}
    report("room", clean, wave, ways)


def costs(speech: list[np.ndarray], noises: list[np.ndarray]) -> None:
    """Microseconds per crop of a block, with features."""
    speech, noises = speech[:BLOCK], noises[:BLOCK]
    raw, low, step = as_bytes([fbank(wave, CONFIG) for wave in speech])
    one = torch.ones(len(raw), 1, 1)
    noise = Noise(*as_bytes([fbank(wave, CONFIG) for wave in noises]), 10 * one, torch.from_numpy(WEIGHTS).float())
    room, every = Reverb(0.8 * one, one, 10 ** (-6 * 0.01 / ReverbConfig.t60[1])), slice(0, len(raw))
    response = simulated_response(0.5, 0, np.random.default_rng(0), RATE)
    pairs = list(zip(speech, noises, strict=True))
    ways = {
        "noise": (
            lambda: noise.add_to(energies_of(raw, low, step), every).view(torch.int32).float(),
            lambda: [fbank(wave + at_snr(other, wave, 10), CONFIG) for wave, other in pairs],
        ),
        "room": (
            lambda: room.add_to(energies_of(raw, low, step), every).view(torch.int32).float(),
            lambda: [fbank(reverberated(wave, response), CONFIG) for wave in speech],
        ),
    }
    for name, (mel, wave) in ways.items():
        turns = [(seconds(mel) / len(raw), seconds(wave) / len(raw)) for _ in range(12)][2:]
        fast, slow = (1e6 * statistics.median(column) for column in zip(*turns, strict=True))
        ratio = statistics.median(b / a for a, b in turns)
        print(f"{name:6} mel {fast:6.1f} us a crop, wave {slow:7.0f} us, ratio {ratio:.0f}", flush=True)


def seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speech", type=Path, help="folder of audio")
    parser.add_argument("--noise", type=Path, help="folder of audio")
    parser.add_argument("--crops", type=int, default=200)
    parser.add_argument("--files", type=int, default=100, help="read of a folder, at most")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)

    def sounds(folder: Path) -> list[np.ndarray]:
        paths = sorted(audio_below(folder))
        return [read_audio(str(paths[place]), RATE) for place in rng.permutation(len(paths))[: args.files]]

    speech = crops_of(sounds(args.speech) if args.speech else simulated_speech(rng), args.crops, rng)
    noises = crops_of(sounds(args.noise) if args.noise else coloured_noise(rng), args.crops, rng)
    compare_noise(speech, noises, rng)
    compare_rooms(speech, rng)
    costs(speech, noises)


if __name__ == "__main__":
    main()
