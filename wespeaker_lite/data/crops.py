"""Crops for training, read straight from memory-mapped arks, and the order in which an epoch takes them."""

import functools
import logging
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from wespeaker_lite.data.arks import Location, MatrixArk, iter_scp
from wespeaker_lite.data.augment import SpecAugmentConfig, pick, spec_augment, uniforms
from wespeaker_lite.data.tables import iter_table, sorted_keys
from wespeaker_lite.errors import InputError

log = logging.getLogger(__name__)

_BLOCK = 32  # crops that are decoded at a time: as many as stay in a processor's cache


@dataclass(frozen=True)
class CropConfig:
    """A crop: its length in frames, whether its mean is subtracted, and its masks."""

    frames: int = 200
    cmn: bool = True
    spec_augment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ValueError(f"frames is {self.frames}: a crop has at least one")


class Request(NamedTuple):
    """The crops of a batch: the epoch, and the number of each, which is its utterance + pass * utterances in all."""

    epoch: int
    numbers: np.ndarray


@dataclass
class Batch:
    """A batch of crops: indices of their utterances (B,) int64, labels (B,) int64, and features, still as bytes.

    A worker hands over bytes, a quarter of the memory; they become features where they are used, on a GPU after `to`.
    """

    indices: torch.Tensor
    labels: torch.Tensor
    raw: torch.Tensor  # (B, T, F) uint8
    low: torch.Tensor  # (B, 1, 1) float32, as step: a value is low + step * byte
    step: torch.Tensor
    frames: torch.Tensor | None  # (B, T, 1) and (B, 1, F) float32: 0 where frames and bands are masked, 1 elsewhere
    bands: torch.Tensor | None
    cmn: bool

    @functools.cached_property
    def feats(self) -> torch.Tensor:
        """The features (B, T, F) float32: decoded, masked, and without the mean of each crop if `cmn`."""
        feats = torch.empty(self.raw.shape, device=self.raw.device)
        for first in range(0, len(feats), _BLOCK):
            block = slice(first, first + _BLOCK)
            self._decode(block, feats[block])
        return feats

    def _decode(self, block: slice, feats: torch.Tensor) -> None:
        feats.copy_(self.raw[block])
        means = feats.mean(dim=1, keepdim=True)  # sums of bytes are exact in float32: no crop depends on its batch
        scale = self.step[block] if self.bands is None else self.step[block] * self.bands[block]
        torch.addcmul(-means * scale, feats, scale, out=feats)
        if self.frames is not None:
            feats.mul_(self.frames[block])
        if not self.cmn:
            feats.add_(self.low[block] + self.step[block] * means)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on a device."""
        return self._with_each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Called by a data loader that copies to a GPU."""
        return self._with_each(torch.Tensor.pin_memory)

    def _with_each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "Batch":
        values = (getattr(self, name) for name in _FIELDS)
        return Batch(*(change(value) if torch.is_tensor(value) else value for value in values))

    def __getstate__(self) -> dict[str, object]:
        """To another process go the bytes in shared memory, and the rest as arrays: a tensor costs a file handle."""
        small = self._with_each(lambda tensor: tensor if tensor is self.raw else tensor.numpy())
        return {name: getattr(small, name) for name in _FIELDS}

    def __setstate__(self, state: dict[str, object]) -> None:
        for name, value in state.items():
            setattr(self, name, torch.from_numpy(value) if isinstance(value, np.ndarray) else value)


_FIELDS = tuple(entry.name for entry in fields(Batch))


class Names(Sequence[str]):
    """Millions of ids in one block of bytes, which forked workers share as a list of str is not."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = np.array([name.encode() for name in names])

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> str:
        return self._names[index].decode()


class CropDataset(torch.utils.data.Dataset):
    """Crops of the utterances of a data directory; an item is a whole `Batch`, asked for by a `Request`.

    Made for `DataLoader(dataset, sampler=EpochSampler(...), batch_size=None)`. `utterances` are the ids, `classes` the
    speakers in byte order; `num_frames` and `labels` hold a number for each utterance. Where a crop begins and what is
    masked depend on seed, epoch and number alone. An utterance shorter than a crop is repeated to its length. What is
    held per utterance are elements of arrays, which forked workers share.

    Raises:
        InputError: where feats.scp, utt2num_frames and utt2spk do not list the same utterances or an ark is missing.
    """

    def __init__(self, directory: str | Path, config: CropConfig, seed: int) -> None:
        self.config, self.seed = config, seed
        self._read_tables(Path(directory))
        self._maps: dict[int, MatrixArk] = {}
        self.num_mels = self._map(0).matrix(self.utterances[0], int(self._offsets[0])).columns
        short = int(np.count_nonzero(self.num_frames < config.frames))
        if short:
            log.info(
                "%s: %d of %d utterances are shorter than a crop of %d frames and are repeated to its length",
                directory, short, len(self), config.frames,
            )  # fmt: skip

    def _read_tables(self, directory: Path) -> None:
        """Read the tables side by side into arrays; they are sorted alike, so that no dict of millions is needed."""
        ids: list[str] = []
        arks: dict[str, int] = {}
        speakers: dict[str, int] = {}
        columns = tuple(array("q") for _ in range(4))
        for utterance, speaker, (ark, offset), frames in _side_by_side(directory):
            if ark not in arks and not os.path.exists(ark):
                raise InputError(f"{ark}: no such ark; utterance {utterance!r} is said to be in it")
            ids.append(utterance)
            numbers = speakers.setdefault(speaker, len(speakers)), arks.setdefault(ark, len(arks)), offset, frames
            for column, number in zip(columns, numbers, strict=True):
                column.append(number)
        speaker_of, self._ark_of, self._offsets, self.num_frames = (np.array(column) for column in columns)
        self.classes = sorted_keys(speakers)
        rank = np.empty(len(speakers), dtype=np.int64)  # of a speaker met as n-th, its class
        rank[[speakers[speaker] for speaker in self.classes]] = np.arange(len(speakers))
        self.labels = rank[speaker_of]
        self.utterances, self._arks = Names(ids), list(arks)

    def __len__(self) -> int:
        return len(self.labels)

    def _map(self, ark: int) -> MatrixArk:
        """The memory map of an ark, made when a process first reads from it."""
        if ark not in self._maps:
            self._maps[ark] = MatrixArk(self._arks[ark])
        return self._maps[ark]

    def __getitem__(self, request: Request) -> Batch:
        epoch, numbers = request
        config = self.config
        utterances = numbers % len(self)
        draws = uniforms(self.seed, epoch, numbers, 1 + config.spec_augment.num_draws)
        starts = pick(draws[:, 0], np.maximum(self.num_frames[utterances] - config.frames, 0) + 1)
        raw, low, step = self._read(utterances, starts)
        frames = bands = None
        if config.spec_augment.num_draws:
            masked = spec_augment(draws[:, 1:], config.frames, self.num_mels, config.spec_augment)
            frames, bands = (torch.from_numpy(~mask).float() for mask in masked)
            frames, bands = frames[:, :, None], bands[:, None, :]
        labels = torch.from_numpy(self.labels[utterances])
        return Batch(torch.from_numpy(utterances), labels, raw, low, step, frames, bands, config.cmn)

    def _read(self, utterances: np.ndarray, starts: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Copy the bytes of a batch of crops: (B, T, F) uint8, and the low and the step of each crop, (B, 1, 1)."""
        frames, mels = self.config.frames, self.num_mels
        raw = np.empty((len(utterances), frames * mels), dtype=np.uint8)
        scales = []
        wanted = (utterances, self._ark_of[utterances], self._offsets[utterances], self.num_frames[utterances], starts)
        for row, (utterance, ark, offset, rows, start) in enumerate(zip(*map(np.ndarray.tolist, wanted), strict=True)):
            matrix = self._map(ark).matrix(self.utterances[utterance], offset)
            if matrix.rows != rows or matrix.columns != mels:
                raise InputError(
                    f"{self._arks[ark]}: utterance {self.utterances[utterance]!r} is {matrix.rows} x {matrix.columns}, "
                    f"where utt2num_frames and the other utterances say {rows} x {mels}: run the feature stage again"
                )
            scales.append((matrix.low, matrix.step))
            crop = matrix.data[start * mels : (start + frames) * mels]
            raw[row] = crop if rows >= frames else np.resize(crop, frames * mels)
        low, step = torch.tensor(scales, dtype=torch.float32).view(-1, 2, 1, 1).unbind(1)
        return torch.from_numpy(raw).view(-1, frames, mels), low, step


def _side_by_side(directory: Path) -> Iterator[tuple[str, str, Location, int]]:
    """Yield utterance, speaker, location of the features and number of frames."""
    names = ("utt2spk", "feats.scp", "utt2num_frames")
    utt2spk, feats, num_frames = (directory / name for name in names)
    for row in zip_longest(iter_table(utt2spk), iter_scp(feats), iter_table(num_frames)):
        keys = [record[1] if record else "the end" for record in row]
        if None in row or len(set(keys)) > 1:
            places = ", ".join(f"{name} has {key}" for name, key in zip(names, keys, strict=True))
            raise InputError(
                f"{directory}: the tables do not list the same utterances: {places}; "
                f"run: tools/data_dir.sh validate {directory}"
            )
        (_, utterance, speaker), (_, _, location), (line, _, frames) = row
        if not frames.isdecimal() or int(frames) < 1:
            raise InputError(f"{num_frames}:{line}: {frames!r} is no number of frames")
        yield utterance, speaker, location, int(frames)


class EpochSampler(torch.utils.data.Sampler[Request]):
    """The requests of an epoch for one rank: its share of each global batch, in an order given by seed and epoch alone.

    batch_size is that of all ranks together; the epoch has num_batches of them, by default as many as the utterances
    fill, and begins at start_batch where it was broken off.

    Raises:
        InputError: where the ranks cannot share a batch evenly, or the utterances do not fill one.
    """

    def __init__(
        self, num_utts: int, batch_size: int, seed: int, epoch: int, *, num_batches: int | None = None,
        start_batch: int = 0, rank: int = 0, world_size: int = 1,
    ) -> None:  # fmt: skip
        self.num_utts, self.batch_size, self.seed, self.epoch = num_utts, batch_size, seed, epoch
        self.num_batches = num_utts // batch_size if num_batches is None else num_batches
        self.start_batch, self.rank, self.world_size = start_batch, rank, world_size
        if batch_size % world_size:
            raise InputError(f"a batch of {batch_size} cannot be shared evenly by {world_size} processes")
        if self.num_batches < 1:
            raise InputError(f"{num_utts} utterances do not fill one batch of {batch_size}: take a smaller batch")

    def __len__(self) -> int:
        return self.num_batches - self.start_batch

    def __iter__(self) -> Iterator[Request]:
        order = self._order()
        for batch in range(self.start_batch, self.num_batches):
            numbers = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield Request(self.epoch, numbers[self.rank :: self.world_size])

    def _order(self) -> np.ndarray:
        """The crop numbers of the epoch: pass after pass over the utterances, each in an order of its own.

        Each pass has numbers of its own too, since crops of the same number are the same.
        """
        rng = np.random.default_rng((self.seed, self.epoch))
        passes = -(-self.num_batches * self.batch_size // self.num_utts)
        return np.concatenate([rng.permutation(self.num_utts) + turn * self.num_utts for turn in range(passes)])
