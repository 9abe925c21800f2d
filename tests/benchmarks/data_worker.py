"""Crops per second of one data worker, compared with kaldiio, and with extraction during training.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.data_worker [--utterances 3000] [--batch 128] [--rounds 5]

kaldiio loads the whole utterance, and the crop is a slice of it. Both give mean-subtracted float32 batches from
the same arks (8 s, 80 bands) and take turns; the medians are compared. First they run in this process, and CPU time is
measured. Then they run in a DataLoader with one worker, and wall time is measured, with the transfer of batches.

During training, as in wespeaker's processors: soundfile reads the utterance; two of three are played at another speed;
2 s are cut out; three of ten get noise and three reverberation; torchaudio computes fbanks. Ours has the same shares of
noise and reverberation, in the mel domain, and other speeds from arks. The goal is 50 times as many crops.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import kaldiio
import numpy as np
import scipy.signal
import soundfile
import torch
import torchaudio.functional
from torch.utils.data import DataLoader
from torchaudio.compliance import kaldi

from wespeaker_lite.corpora.augmented_copies import at_snr, simulated_response
from wespeaker_lite.data.augmentation import SpecAugmentConfig
from wespeaker_lite.data.crops import Batch, CropConfig, CropDataset
from wespeaker_lite.data.mel_augmentation import NoiseConfig, ReverbConfig
from wespeaker_lite.data.sampler import EpochSampler, Request
from wespeaker_lite.kaldi.arks import ArkWriter
from wespeaker_lite.kaldi.tables import write_table

FRAMES, CROP, MELS, RATE = 798, 200, 80, 16000
FILES = 40  # of each kind, for extraction during training: few enough to stay in memory
BATCHES, WARM_UP = 30, 5
PROBABILITY = 0.3  # of noise, and of reverberation
ON_THE_FLY = 4  # crops in a batch of the peer, which is slow


def make(directory: Path, utterances: int, prefix: str = "s") -> None:
    """Write arks of 1000 utterances each."""
    rng = np.random.default_rng(0)
    noise = [rng.normal(8, 3, (FRAMES, MELS)).astype(np.float32) for _ in range(16)]
    keys = [f"{prefix}{number // 100:04d}-{number:06d}" for number in range(utterances)]
    if prefix == "noise":
        keys = [f"noise-{number:06d}" for number in range(utterances)]
    lines = []
    for first in range(0, utterances, 1000):
        with ArkWriter(directory / f"feats.{first}") as writer:
            for number, key in enumerate(keys[first : first + 1000]):
                writer.write(key, noise[number % 16])
        lines.append((directory / f"feats.{first}.scp").read_text())
    (directory / "feats.scp").write_text("".join(lines))
    write_table(directory / "utt2spk", {key: key.partition("-")[0] for key in keys})
    write_table(directory / "utt2num_frames", dict.fromkeys(keys, FRAMES))


class PlainDataset(torch.utils.data.Dataset):
    """Decodes the whole utterance for each crop."""

    def __init__(self, folder: Path, data: CropDataset) -> None:
        self.scp = dict(line.split() for line in (folder / "feats.scp").read_text().splitlines())
        self.utterances, self.labels = list(data.utterances), data.labels.tolist()

    def __getitem__(self, request: Request) -> tuple[torch.Tensor, torch.Tensor]:
        indices = request.numbers % len(self.labels)
        starts = np.random.default_rng(request.epoch).integers(FRAMES - CROP + 1, size=len(indices))
        crops = []
        for index, start in zip(indices, starts, strict=True):
            crop = kaldiio.load_mat(self.scp[self.utterances[index]])[start : start + CROP]
            crops.append(torch.from_numpy(crop - crop.mean(axis=0)))
        return torch.stack(crops), torch.tensor([self.labels[index] for index in indices])


def make_audio(folder: Path) -> None:
    """Write utterances of 8 s, noises of 5 s and impulse responses as 16-bit wav."""
    rng = np.random.default_rng(0)
    for number in range(FILES):
        sounds = {"speech": rng.normal(0, 0.1, 8 * RATE), "noise": rng.normal(0, 0.1, 5 * RATE)}
        for name, samples in (*sounds.items(), ("room", simulated_response(0.5, 0, rng, RATE))):
            soundfile.write(folder / f"{name}{number}.wav", samples / max(1, np.abs(samples).max()), RATE)


class OnTheFlyDataset(torch.utils.data.Dataset):
    """Computes features from audio for each crop."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, request: Request) -> tuple[torch.Tensor, torch.Tensor]:
        rng = np.random.default_rng((request.epoch, *request.numbers))
        crops = torch.stack([self._crop(rng) for _ in request.numbers])
        return crops, torch.from_numpy(request.numbers)

    def _read(self, name: str, rng: np.random.Generator) -> np.ndarray:
        return soundfile.read(self.folder / f"{name}{rng.integers(FILES)}.wav", dtype="float32")[0]

    def _crop(self, rng: np.random.Generator) -> torch.Tensor:
        samples = self._read("speech", rng)
        speed = rng.choice([1.0, 0.9, 1.1])
        if speed != 1:
            played = torchaudio.functional.resample(torch.from_numpy(samples), round(speed * RATE), RATE)
            samples = played.numpy()
        size = (CROP - 1) * RATE // 100 + RATE // 40
        start = rng.integers(len(samples) - size + 1)
        samples = samples[start : start + size]
        what = rng.uniform()
        if what < PROBABILITY:
            samples = scipy.signal.convolve(samples, self._read("room", rng))[:size]
        elif what < 2 * PROBABILITY:
            samples = samples + at_snr(self._read("noise", rng)[:size], samples, rng.uniform(0, 15))
        wave = torch.from_numpy(samples.astype(np.float32))[None] * 32768
        feats = kaldi.fbank(wave, num_mel_bins=MELS, dither=0.0, sample_frequency=RATE)
        return feats - feats.mean(0)


def direct(data: torch.utils.data.Dataset, requests: list[Request]) -> Iterator:
    """Batches made in this process."""
    return (data[request] for request in requests)


def loaded(data: torch.utils.data.Dataset, requests: list[Request]) -> Iterator:
    """Batches made by one worker."""
    return iter(DataLoader(data, sampler=requests, batch_size=None, num_workers=1))


def crops_per_second(batches: Iterator, clock: Callable[[], float]) -> float:
    """Time all batches, as features, except the first few, which include the start of a worker."""
    for _ in range(WARM_UP):
        next(batches)
    started = clock()
    crops = sum(len(batch.feats if isinstance(batch, Batch) else batch[0]) for batch in batches)
    return crops / (clock() - started)


def compare(name: str, way: Callable, ours: CropDataset, other: torch.utils.data.Dataset, orders: list) -> None:
    """Each order is a list of requests. The slow alternative gets only the first few of each."""
    pairs = []
    clock = time.process_time if way is direct else time.perf_counter
    for order in orders:
        few = [Request(request.epoch, request.numbers[:ON_THE_FLY]) for request in order]
        others = few if isinstance(other, OnTheFlyDataset) else order
        pairs.append((crops_per_second(way(ours, order), clock), crops_per_second(way(other, others), clock)))
    fast, slow = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"{name:28}{fast:8.0f} crops/s, the other {slow:6.0f} crops/s, ratio {ratio:5.1f}", flush=True)


def measure(folder: Path, args: argparse.Namespace) -> None:
    data = CropDataset(folder, CropConfig(CROP), seed=0)
    masks = SpecAugmentConfig(freq_masks=1, time_masks=1)
    masked = CropDataset(folder, CropConfig(CROP, spec_augment=masks), seed=0)
    plain = PlainDataset(folder, data)
    shuffled = [
        list(EpochSampler(len(data), args.batch, seed=0, epoch=epoch, num_batches=BATCHES))
        for epoch in range(args.rounds)
    ]
    in_order = [[Request(0, np.arange(args.batch) + n * args.batch) for n in range(BATCHES)]] * args.rounds
    compare("in order", direct, data, plain, in_order)
    compare("shuffled", direct, data, plain, shuffled)
    compare("shuffled, masked", direct, masked, plain, shuffled)
    compare("by a worker", loaded, data, plain, shuffled)
    compare("by a worker, masked", loaded, masked, plain, shuffled)
    make(folder / "noise", 300, "noise")
    make_audio(folder)
    distorted = CropConfig(CROP, noise=NoiseConfig(PROBABILITY, ("noise",)), reverb=ReverbConfig(PROBABILITY))
    ours, on_the_fly = CropDataset(folder, distorted, 0, folder / "noise"), OnTheFlyDataset(folder)
    compare("distorted, on the fly", direct, ours, on_the_fly, shuffled)
    compare("by a worker, on the fly", loaded, ours, on_the_fly, shuffled)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), args.utterances)
        measure(Path(folder), args)


if __name__ == "__main__":
    main()
