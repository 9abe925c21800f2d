"""Crops a second of one data worker, against the plain way: kaldiio loads the utterance, then a crop is sliced.

    python tests/benchmarks/data_worker.py [--utterances 3000] [--batch 128] [--rounds 5]

Both give mean-subtracted float32 batches from the same arks (8 s, 80 bands) and take turns; the medians are compared.
First in this process, then through a DataLoader with one worker, where a batch also changes process.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
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
BATCHES, WARM_UP = 30, 5


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


def direct(data: torch.utils.data.Dataset, requests: list[Request]) -> Iterator:
    """Batches that this process makes."""
    return (data[request] for request in requests)


def loaded(data: torch.utils.data.Dataset, requests: list[Request]) -> Iterator:
    """Batches that one worker makes."""
    return iter(DataLoader(data, sampler=requests, batch_size=None, num_workers=1))


def crops_per_second(batches: Iterator) -> float:
    """Take all batches, as features, and time them but for the first few, which pay for the start of a worker."""
    for _ in range(WARM_UP):
        next(batches)
    started = time.perf_counter()
    crops = sum(len(batch.feats if isinstance(batch, Batch) else batch[0]) for batch in batches)
    return crops / (time.perf_counter() - started)


def compare(name: str, way: Callable, ours: CropDataset, plain: PlainDataset, orders: list[list[Request]]) -> None:
    pairs = [(crops_per_second(way(ours, order)), crops_per_second(way(plain, order))) for order in orders]
    fast, slow = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(f"{name:24}{fast:8.0f} crops/s, plain {slow:6.0f} crops/s, ratio {ratio:5.1f}")


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
