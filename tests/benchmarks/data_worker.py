"""Crops a second of one data worker, against the plain way: kaldiio loads the utterance, then a crop is sliced.

    python tests/benchmarks/data_worker.py [--utterances 3000] [--batch 128] [--rounds 5]

Both give mean-subtracted float32 batches from the same arks (8 s, 80 bands) and take turns; the medians are compared.
First in this process, then through a DataLoader with one worker, where a batch also changes process.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import kaldiio
import numpy as np
import torch
from torch.utils.data import DataLoader

from wespeaker_lite.data.arks import ArkWriter
from wespeaker_lite.data.augment import SpecAugmentConfig
from wespeaker_lite.data.crops import Batch, CropConfig, CropDataset, EpochSampler, Request
from wespeaker_lite.data.tables import write_table

FRAMES, CROP, MELS = 798, 200, 80
AT_A_TIME = 10  # batches


def make(directory: Path, utterances: int) -> None:
    """Write arks of 1000 utterances each."""
    rng = np.random.default_rng(0)
    noise = [rng.normal(8, 3, (FRAMES, MELS)).astype(np.float32) for _ in range(16)]
    keys = [f"s{number // 100:04d}-{number:06d}" for number in range(utterances)]
    lines = []
    for first in range(0, utterances, 1000):
        with ArkWriter(directory / f"feats.{first}") as writer:
            for number, key in enumerate(keys[first : first + 1000]):
                writer.write(key, noise[number % 16])
        lines.append((directory / f"feats.{first}.scp").read_text())
    (directory / "feats.scp").write_text("".join(lines))
    write_table(directory / "utt2spk", {key: key[:5] for key in keys})
    write_table(directory / "utt2num_frames", dict.fromkeys(keys, FRAMES))


class PlainDataset(torch.utils.data.Dataset):
    """The plain way: whole utterances, decoded, for each crop."""

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


def direct(data: torch.utils.data.Dataset, sampler: Iterable[Request]) -> Iterator[torch.Tensor]:
    """The features of batches that this process makes."""
    return (features(data[request]) for request in sampler)


def loaded(data: torch.utils.data.Dataset, sampler: Iterable[Request]) -> Iterator[torch.Tensor]:
    """The features of batches that one worker makes."""
    return map(features, DataLoader(data, sampler=sampler, batch_size=None, num_workers=1))


def features(batch: Batch | tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    return batch.feats if isinstance(batch, Batch) else batch[0]


def crops_per_second(batches: Iterator[torch.Tensor]) -> float:
    """Take ten batches, so that the two that a worker has made ahead weigh little, and alike for all."""
    started = time.perf_counter()
    crops = sum(len(next(batches)) for _ in range(AT_A_TIME))
    return crops / (time.perf_counter() - started)


def compare(name: str, ours: Iterator[torch.Tensor], plain: Iterator[torch.Tensor], rounds: int) -> None:
    pairs = [(crops_per_second(ours), crops_per_second(plain)) for _ in range(rounds + 1)]
    fast, slow = (statistics.median(column) for column in zip(*pairs[1:], strict=True))  # the first round warms up
    print(f"{name:24}{fast:8.0f} crops/s, plain {slow:6.0f} crops/s, ratio {fast / slow:5.1f}")


def measure(folder: Path, args: argparse.Namespace) -> None:
    masks = SpecAugmentConfig(freq_masks=1, time_masks=1)
    data = CropDataset(folder, CropConfig(CROP), seed=0)
    masked = CropDataset(folder, CropConfig(CROP, spec_augment=masks), seed=0)
    plain = PlainDataset(folder, data)
    batches = AT_A_TIME * (args.rounds + 1)
    shuffled = EpochSampler(len(data), args.batch, seed=0, epoch=0, num_batches=batches)
    in_order = [Request(0, np.arange(args.batch) + batch * args.batch) for batch in range(batches)]
    compare("in order", direct(data, in_order), direct(plain, in_order), args.rounds)
    compare("shuffled", direct(data, shuffled), direct(plain, shuffled), args.rounds)
    compare("shuffled, masked", direct(masked, shuffled), direct(plain, shuffled), args.rounds)
    compare("by a worker", loaded(data, shuffled), loaded(plain, shuffled), args.rounds)
    compare("by a worker, masked", loaded(masked, shuffled), loaded(plain, shuffled), args.rounds)


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
