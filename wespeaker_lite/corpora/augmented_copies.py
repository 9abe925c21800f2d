"""Augmented copies of a data set: at another speed, with noise, music or babble, or with reverberation.

The recipe is that of Kaldi's egs/voxceleb/v2 (augment_data_dir.py, reverberate_data_dir.py, wav-reverberate). The
random choices for an utterance depend only on the seed and its id, not on the number of jobs.
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
TALKERS = (3, 4, 5, 6, 7)  # numbers of speakers in babble
CLIPS = {"noise": "noise", "music": "music", "babble": "speech"}  # kind of copy -> kind of clips
PAUSE = 1.0  # seconds between two noises
REMAKE = "list them again, by stage 2 with --musan-dir or --rirs-dir"
_TINY = 1e-30  # avoids a division by zero power


@dataclass(frozen=True)
class Copy:
    """An augmented copy: its speed, its kind (reverb, noise, music, babble or none) and the seed of its random choices.

    musan, rirs: the data dirs (`write_clips`) of noises and of impulse responses. Without rirs, these are simulated.
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
        """The id of the copy of a speaker: another speaker at another speed."""
        return speed_prefix(self.speed) + name


class Copier:
    """Makes the samples of a copy: `copier(id of the copy, samples (n,))` -> samples.

    Raises:
        InputError: if the copy needs clips that are not given, or a clip is a command and `pipes` is false. In a call,
            naming a clip that cannot be read.
    """

    def __init__(self, copy: Copy, sample_rate: int, pipes: bool = True) -> None:
        self.copy, self.rate = copy, sample_rate
        self._clips: list[tuple[str, float]] = []
        if copy.kind in CLIPS:
            self._clips = _read_clips(copy.musan, CLIPS[copy.kind], pipes)
        elif copy.kind and copy.rirs:
            self._clips = _read_clips(copy.rirs, "room", pipes)

    def blocks(self, key: str, blocks: Iterable[np.ndarray]) -> Iterable[np.ndarray]:
        """Make the copy of samples in blocks. Only noise and reverberation need all samples in memory.

        Raises:
            InputError: as a call, or naming an utterance that is too long to be held in memory.
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
        """Add one noise after the other, each at its own SNR, which is over the whole noise and the whole utterance."""
        noisy, start = samples.astype(np.float64), 0
        while start < len(samples):
            noise = at_snr(self._whole(rng), samples, rng.choice(SNRS["noise"]))
            part = noisy[start : start + len(noise)]
            part += noise[: len(part)]
            start += len(noise) + round(PAUSE * self.rate)
        return noisy

    def _with_background(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Add music, or several speakers, to the whole utterance, each at its own SNR."""
        kind, noisy = self.copy.kind, samples.astype(np.float64)
        for _ in range(rng.choice(TALKERS) if kind == "babble" else 1):
            noisy += at_snr(self._excerpt(len(samples), rng), samples, rng.choice(SNRS[kind]))
        return noisy

    def _whole(self, rng: np.random.Generator) -> np.ndarray:
        path, _ = self._drawn(rng)
        clip = read_audio(path, self.rate)
        if not clip.any():
            raise InputError(f"{path}: silent: remove it")
        return clip

    def _excerpt(self, size: int, rng: np.random.Generator) -> np.ndarray:
        """Draw a clip, and read `size` samples from a random place in it. A shorter clip is repeated."""
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
    """Scale noise (m,) so that the SNR of samples (n,), a ratio of mean powers, is `snr` dB: float64."""
    return noise * np.sqrt(mean_power(samples) / max(mean_power(noise), _TINY) / 10 ** (snr / 10))


def mean_power(samples: np.ndarray) -> float:
    """The mean of squares, in float64."""
    return float(np.mean(np.square(samples, dtype=np.float64)))


def reverberated(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Convolve samples (n,) with an impulse response: (n,) float64, of the same power, without delay."""
    direct = int(np.abs(response).argmax())
    heard = scipy.signal.fftconvolve(samples.astype(np.float64), response)[direct : direct + len(samples)]
    return heard * np.sqrt(mean_power(samples) / max(mean_power(heard), _TINY))


def simulated_response(t60: float, drr: float, rng: np.random.Generator, sample_rate: int) -> np.ndarray:
    """Draw an impulse response: the direct sound, then noise that decays by 60 dB in T60 (Polack 1988; Moorer 1979).

    `t60` is in seconds. `drr`, in dB, is the ratio of the energies of direct sound and noise.
    """
    time = np.arange(round(t60 * sample_rate)) / sample_rate
    response = rng.standard_normal(len(time)) * 10 ** (-3 * time / t60)
    response *= np.sqrt(10 ** (-drr / 10) / np.sum(response**2))
    response[0] += 1
    return response


def write_clips(out: str | Path, files: Mapping[str, Sequence[Path]]) -> None:
    """Write a data dir of clips, whose speakers are the kinds: wav.scp, utt2spk, spk2utt, utt2dur, audio.list.

    Raises:
        InputError: naming the first file that, by its header, is empty, cut or no audio.
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
    """Read the paths and durations of the clips of a kind."""
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
    """Write a copy as audio and a data dir. Its ids are those of `source`, so that the trials of `source` can be used.

    Raises:
        InputError: as `Copier`, and naming an utterance that cannot be read.
    """
    source, out = Path(source), Path(out).absolute()
    utterances, copier = Utterances(source, sample_rate), Copier(copy, sample_rate)
    wavs = {}
    for utterance in utterances:
        samples = copier(copy.utterance(utterance.id), utterances.read(utterance))
        wavs[utterance.id] = path = out / "wav" / f"{utterance.id}.flac"
        write_flac(path, samples / max(1.0, np.abs(samples).max()), sample_rate)  # the file would clip above 1
    write_table(out / "wav.scp", wavs)
    write_table(out / "utt2spk", read_table(source / "utt2spk"))
