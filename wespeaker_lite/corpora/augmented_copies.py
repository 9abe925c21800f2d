"""Copies of a data set as Kaldi's recipes make them: at another speed, with noise, music or babble, or reverberant.

The recipe is that of Kaldi's egs/voxceleb/v2 (augment_data_dir.py, reverberate_data_dir.py, wav-reverberate). What is
drawn for an utterance depends on the seed and its id alone, so that the number of jobs changes nothing.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.signal

from wespeaker_lite.audio.audio_list import iter_audio, list_audio
from wespeaker_lite.audio.reading import Utterances, audio_seconds, read_audio, whole, write_flac
from wespeaker_lite.audio.resample import resampled
from wespeaker_lite.audio.speed import rate_of_speed, speed_perturb, speed_prefix
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.corpora.corpus_set import CorpusSet, write_data_dir
from wespeaker_lite.data.mel_augmentation import ReverbConfig
from wespeaker_lite.kaldi.tables import read_table, write_table

SNRS = {"noise": (15, 10, 5, 0), "music": (15, 10, 8, 5), "babble": (20, 17, 15, 13)}  # dB
TALKERS = (3, 4, 5, 6, 7)  # of babble
CLIPS = {"noise": "noise", "music": "music", "babble": "speech"}  # what each kind of copy is made with
PAUSE = 1.0  # seconds between two noises
REMAKE = "list them again, by stage 2 with --musan-dir or --rirs-dir"
_TINY = 1e-30  # a power that stands for none, to divide by


@dataclass(frozen=True)
class Copy:
    """What a copy is: its speed, its kind (reverb, noise, music, babble or none), the seed of what is drawn for it.

    musan, rirs: the data dirs (`write_clips`) of noises and of impulse responses; without rirs these are simulated.
    """

    speed: float = 1.0
    kind: str = ""
    seed: int = 0
    musan: str = ""
    rirs: str = ""

    def utterance(self, name: str) -> str:
        """The id of the copy of an utterance: sp0.9-ID-noise."""
        return speed_prefix(self.speed) + name + (f"-{self.kind}" if self.kind else "")

    def speaker(self, name: str) -> str:
        """The id of its speaker: another one at another speed."""
        return speed_prefix(self.speed) + name


class Copier:
    """Makes the samples of a copy: `copier(id of the copy, samples (n,))` -> samples.

    Raises:
        InputError: where the copy needs clips that are not given, or one is a command although there are to be no
            `pipes`; at work, naming a clip that cannot be read.
    """

    def __init__(self, copy: Copy, sample_rate: int, pipes: bool = True) -> None:
        self.copy, self.rate = copy, sample_rate
        self._clips: list[tuple[str, float]] = []
        if copy.kind in CLIPS:
            self._clips = _read_clips(copy.musan, CLIPS[copy.kind], pipes)
        elif copy.kind and copy.rirs:
            self._clips = _read_clips(copy.rirs, "room", pipes)

    def blocks(self, key: str, blocks: Iterable[np.ndarray]) -> Iterable[np.ndarray]:
        """The same for samples that come in blocks; only for noise and reverberation all of them are held in memory.

        Raises:
            InputError: as at work, or naming an utterance that is too long to be held in memory.
        """
        if self.copy.kind:
            return [self(key, whole(blocks, self.rate, key))]
        return resampled(blocks, rate_of_speed(self.copy.speed, self.rate), self.rate)

    def __call__(self, key: str, samples: np.ndarray) -> np.ndarray:
        copy = self.copy
        if copy.speed != 1:
            samples = speed_perturb(samples, copy.speed, self.rate)
        if not copy.kind:
            return samples
        digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
        rng = np.random.default_rng((copy.seed, int.from_bytes(digest)))
        make = {"reverb": self._in_room, "noise": self._with_noises}.get(copy.kind, self._with_background)
        return make(samples, rng).astype(np.float32)

    def _with_noises(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One noise after the other, each at a ratio of its own: that of the whole noise to the whole utterance."""
        noisy, start = samples.astype(np.float64), 0
        while start < len(samples):
            noise = at_snr(self._whole(rng), samples, rng.choice(SNRS["noise"]))
            part = noisy[start : start + len(noise)]
            part += noise[: len(part)]
            start += len(noise) + round(PAUSE * self.rate)
        return noisy

    def _with_background(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Music, or several talkers, all along the utterance, each at a ratio of its own."""
        kind, noisy = self.copy.kind, samples.astype(np.float64)
        for _ in range(rng.choice(TALKERS) if kind == "babble" else 1):
            noisy += at_snr(self._stretch(len(samples), rng), samples, rng.choice(SNRS[kind]))
        return noisy

    def _whole(self, rng: np.random.Generator) -> np.ndarray:
        path, _ = self._drawn(rng)
        clip = read_audio(path, self.rate)
        if not clip.any():
            raise InputError(f"{path}: silent: remove it")
        return clip

    def _stretch(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """A clip, and as many samples from a random place in it; a clip that is shorter is repeated."""
        path, seconds = self._drawn(rng)
        start = rng.uniform(0, max(0.0, seconds - size / self.rate))
        end = start + size / self.rate
        return np.resize(read_audio(path, self.rate, start, end if end < seconds else None), size)

    def _in_room(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        if self._clips:
            return reverberated(samples, self._whole(rng))
        t60, drr = rng.uniform(*ReverbConfig.t60), rng.uniform(*ReverbConfig.drr)
        return reverberated(samples, simulated_response(t60, drr, rng, self.rate))

    def _drawn(self, rng: np.random.Generator) -> tuple[str, float]:
        return self._clips[rng.integers(len(self._clips))]


def at_snr(noise: np.ndarray, samples: np.ndarray, snr: float) -> np.ndarray:
    """Scale noise to a ratio of mean powers, in dB, to samples of whatever length: float64. Silence stays as it is."""
    return noise * np.sqrt(mean_power(samples) / max(mean_power(noise), _TINY) / 10 ** (snr / 10))


def mean_power(samples: np.ndarray) -> float:
    """Mean of squares, in float64."""
    return float(np.mean(np.square(samples, dtype=np.float64)))


def reverberated(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Convolve samples (n,) with an impulse response: (n,) float64, of the same power, the direct sound in place."""
    direct = int(np.abs(response).argmax())
    heard = scipy.signal.fftconvolve(samples.astype(np.float64), response)[direct : direct + len(samples)]
    return heard * np.sqrt(mean_power(samples) / max(mean_power(heard), _TINY))


def simulated_response(t60: float, drr: float, rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """Draw an impulse response: the direct sound, then noise that decays by 60 dB in T60 (Polack 1988; Moorer 1979).

    T60 is in seconds; drr, in dB, is the energy of the direct sound over that of the noise.
    """
    time = np.arange(round(t60 * sample_rate)) / sample_rate
    response = rng.standard_normal(len(time)) * 10 ** (-3 * time / t60)
    response *= np.sqrt(10 ** (-drr / 10) / np.sum(response**2))
    response[0] += 1
    return response


def write_clips(out: str | Path, files: Mapping[str, Sequence[Path]]) -> None:
    """List clips by kind as a data dir, whose speakers are the kinds: wav.scp, utt2spk, spk2utt, utt2dur, audio.list.

    Raises:
        InputError: naming the first file that is empty, cut or no audio, as far as its header tells.
    """
    wavs, utt2spk, seconds = {}, {}, {}
    for kind, paths in files.items():
        folder = os.path.commonpath([path.parent for path in paths])
        for path in paths:
            key = f"{kind}-{'_'.join(os.path.relpath(path, folder).split())}"
            wavs[key], utt2spk[key], seconds[key] = str(path), kind, f"{audio_seconds(path):.3f}"
    out = Path(out)
    write_data_dir(out, CorpusSet(wavs, utt2spk))
    write_table(out / "utt2dur", seconds)
    list_audio(out)


def _read_clips(directory: str, kind: str, pipes: bool) -> list[tuple[str, float]]:
    """Paths and seconds of the clips of a kind."""
    if not directory:
        raise InputError(f"copies with {kind} need clips of it: name MUSAN's folder by --musan-dir")
    folder = Path(directory)
    wavs = {key: value for _, key, value in iter_audio(folder / "wav.scp", pipes)}
    kinds, seconds = (read_table(folder / name) for name in ("utt2spk", "utt2dur"))
    if not kinds.keys() == wavs.keys() == seconds.keys():
        raise InputError(f"{folder}: wav.scp, utt2spk and utt2dur do not list the same clips: {REMAKE}")
    try:
        clips = [(path, float(seconds[key])) for key, path in wavs.items() if kinds[key] == kind]
    except ValueError as error:
        raise InputError(f"{folder}/utt2dur: {error}: {REMAKE}") from error
    if not clips:
        there = ", ".join(sorted(set(kinds.values())))
        raise InputError(f"{directory} lists no {kind}, only {there}; copies need it: see --musan-dir")
    return clips


def write_copy(source: str | Path, out: str | Path, copy: Copy, sample_rate: int = 16000) -> None:
    """Write a copy as audio, a data dir whose ids are those of `source`: its trials are then trials of the copy too.

    Raises:
        InputError: as `Copier`, and naming an utterance that cannot be read.
    """
    source, out = Path(source), Path(out).absolute()
    utterances, copier = Utterances(source, sample_rate), Copier(copy, sample_rate)
    wavs = {}
    for utterance in utterances:
        samples = copier(copy.utterance(utterance.id), utterances.read(utterance))
        wavs[utterance.id] = path = out / "wav" / f"{utterance.id}.flac"
        write_flac(path, samples / max(1.0, np.abs(samples).max()), sample_rate)  # no louder than a file can hold
    write_table(out / "wav.scp", wavs)
    write_table(out / "utt2spk", read_table(source / "utt2spk"))
