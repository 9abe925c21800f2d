"""Crops for training, read from memory-mapped arks."""

import functools
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch

from wespeaker_lite.audio.fbank import Acoustics
from wespeaker_lite.audio.speed import unperturbed
from wespeaker_lite.core.config import bounded
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.labels import UNLABELLED
from wespeaker_lite.data.augmentation import SpecAugmentConfig, pick, spec_augment, uniforms
from wespeaker_lite.data.mel_augmentation import (
    LOG_OF_BITS_0,
    NAT,
    NOISE_KINDS,
    NUM_DRAWS,
    Noise,
    NoiseConfig,
    Reverb,
    ReverbConfig,
    Tensors,
    draw_reverb,
    draw_snr,
    energies_of,
)  # fmt: skip
from wespeaker_lite.data.resident import ResidentFeatures
from wespeaker_lite.data.sampler import Request
from wespeaker_lite.kaldi.arks import ByteMatrix, MatrixArk, iter_scp
from wespeaker_lite.kaldi.block_table import BlockTable, decimals, numbered, read_block_table
from wespeaker_lite.kaldi.data_dir import unlabelled_speakers

log = logging.getLogger(__name__)

_BLOCK = 32  # crops that are decoded at a time on a CPU: they fit into its cache


@dataclass(frozen=True)
class CropConfig:
    """A crop: a part of fixed length of an utterance's features.

    A crop gets noise or reverberation, not both, as in the published recipes.

    Attributes:
        frames: length in frames. Shorter utterances are repeated.
        cmn: subtract the mean of the crop from each mel band. In extraction it is the mean of the utterance.
        spec_augment: masks over mel bands and frames.
        noise: noise that is mixed into crops.
        reverb: reverberation that is simulated on crops.
    """

    frames: int = bounded(200, 1, 100_000)
    cmn: bool = True
    spec_augment: SpecAugmentConfig = field(default_factory=SpecAugmentConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    reverb: ReverbConfig = field(default_factory=ReverbConfig)

    def __post_init__(self) -> None:
        if self.distorted > 1:
            raise ValueError("the probabilities of noise and of reverb add up to more than 1")

    @property
    def distorted(self) -> float:
        """The share of crops that get noise or reverberation."""
        return self.noise.probability + self.reverb.probability

    @property
    def num_draws(self) -> int:
        """Random numbers per crop: for its start, its masks, and noise or reverberation."""
        return 1 + self.spec_augment.num_draws + (NUM_DRAWS if self.distorted else 0)


@dataclass
class Batch(Tensors):
    """A batch of crops: indices of their utterances (B,) int64, labels (B,) int64 (-1: none), and features as bytes.

    Workers send bytes, which need a quarter of the memory. `feats` decodes them, on a GPU after `to`. The reverberant
    crops are first, then those with noise, so that each kind is processed as a block.
    """

    indices: torch.Tensor
    labels: torch.Tensor
    raw: torch.Tensor  # (B, T, F) uint8
    low: torch.Tensor  # (B, 1, 1) float32; a value is low + step * byte
    step: torch.Tensor  # (B, 1, 1) float32
    frames: torch.Tensor | None  # (B, T, 1) and (B, 1, F) float32: 0 where frames and bands are masked, 1 elsewhere
    bands: torch.Tensor | None
    cmn: bool
    reverb: Reverb | None = None
    noise: Noise | None = None

    @functools.cached_property
    def feats(self) -> torch.Tensor:
        """The features (B, T, F) float32: with noise or reverberation, masks and, if `cmn`, mean subtraction."""
        feats = torch.empty(self.raw.shape, device=self.raw.device)
        size = _BLOCK if self.raw.device.type == "cpu" else len(self.raw)
        for distortion, begin, end in self._parts():
            for first in range(begin, end, size):
                block = slice(first, min(first + size, end))
                self._decode(block, feats[block], distortion, slice(first - begin, block.stop - begin))
        return feats

    def _parts(self) -> Iterator[tuple[Reverb | Noise | None, int, int]]:
        """The ranges of the reverberant crops, the crops with noise, and the others."""
        reverberant = len(self.reverb.decay) if self.reverb else 0
        noisy = reverberant + (len(self.noise.raw) if self.noise else 0)
        yield from ((self.reverb, 0, reverberant), (self.noise, reverberant, noisy), (None, noisy, len(self.raw)))

    def _decode(self, block: slice, feats: torch.Tensor, distortion: Reverb | Noise | None, rows: slice) -> None:
        low, step = self.low[block], self.step[block]
        if distortion is None:
            feats.copy_(self.raw[block])
        else:
            energies = distortion.add_to(energies_of(self.raw[block], low, step), rows)
            feats.copy_(energies.view(torch.int32))
            low, step = torch.full_like(low, LOG_OF_BITS_0), torch.full_like(step, 1 / NAT)
        means = feats.mean(dim=1, keepdim=True)  # sums of bytes are exact in float32, whatever the batch
        scale = step if self.bands is None else step * self.bands[block]
        torch.addcmul(-means * scale, feats, scale, out=feats)
        if self.frames is not None:
            feats.mul_(self.frames[block])
        if not self.cmn:
            feats.add_(low + step * means)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch on a device."""
        return self.with_each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """Called by a data loader that copies to a GPU."""
        return self.with_each(torch.Tensor.pin_memory)


class Names(Sequence[str]):
    """Millions of ids in one block of bytes. Forked workers share it, unlike a list of str."""

    def __init__(self, names: np.ndarray) -> None:
        self.names = names  # (n,) S

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> str:
        return self.names[index].decode()


class CropDataset(torch.utils.data.Dataset):
    """Crops of the utterances of a data directory. An item is a whole `Batch`, and its index is a `Request`.

    Used as `DataLoader(dataset, sampler=EpochSampler(...), batch_size=None)`. `utterances` are the ids, and `classes`
    the speakers in byte order. `num_frames` and `labels` have a number for each utterance. All random choices for a
    crop depend only on seed, epoch and crop number. An utterance shorter than a crop is repeated to its length. The
    data of utterances are in arrays, which forked workers share.

    The label of an utterance whose speaker is unknown (`spk2unlabelled`) is -1. With `labelled_only`, such utterances
    are left out, and the log says so.

    `noise` is a data directory of noise clips, whose speakers are the kinds of noise.

    Raises:
        InputError: if feats.scp, utt2num_frames and utt2spk do not list the same utterances, an ark is missing, no
            utterance is labelled, or the config needs noise, or a kind of it, that is not given.
    """

    def __init__(
        self, directory: str | Path, config: CropConfig, seed: int, noise: str | Path | None = None,
        acoustics: Acoustics | None = None, labelled_only: bool = False,
    ) -> None:  # fmt: skip
        self.config, self.seed, self.acoustics = config, seed, acoustics or Acoustics()
        self._read_tables(Path(directory))
        if labelled_only and self.num_unlabelled:
            log.info(
                "%s: %d unlabelled utterances are left out: only KD terms use them", directory, self.num_unlabelled
            )
            self._drop_unlabelled()
        self._maps: dict[int, MatrixArk] = {}
        self._noise: CropDataset | None = None
        self._resident: ResidentFeatures | None = None
        self.num_mels = self._map(self._ark_of[0]).matrix(self.utterances[0], int(self._offsets[0])).columns
        short = int(np.count_nonzero(self.num_frames < config.frames))
        if short:
            log.info(
                "%s: %d of %d utterances are shorter than a crop of %d frames and are repeated to its length",
                directory, short, len(self), config.frames,
            )  # fmt: skip
        if config.noise.probability:
            self._open_noise(noise)

    def _open_noise(self, directory: str | Path | None) -> None:
        """Open the noise clips of the kinds in the config."""
        config = self.config.noise
        if not directory:
            raise InputError("crop.noise: no features of noise are given; stage 2 makes them, with --musan-dir DIR")
        self._noise = CropDataset(directory, CropConfig(self.config.frames), self.seed)
        if self._noise.num_mels != self.num_mels:
            raise InputError(f"{directory}: noise has {self._noise.num_mels} mel bins, speech {self.num_mels}")
        missing = [kind for kind in config.kinds if kind not in self._noise.classes]
        if missing:
            raise InputError(
                f"{directory}: there is no {missing[0]}, only {', '.join(self._noise.classes)}: set crop.noise.kinds"
            )
        kind_of = np.array([NOISE_KINDS.index(kind) for kind in self._noise.classes])[self._noise.labels]
        self._noise_clips = np.flatnonzero(np.isin(kind_of, [NOISE_KINDS.index(kind) for kind in config.kinds]))
        self._noise_kinds = kind_of[self._noise_clips]

    def _read_tables(self, directory: Path) -> None:
        """Read the tables into arrays. They have the same order, so that no dict is needed."""
        utt2spk, feats, num_frames = _same_keys(directory, ("utt2spk", "feats.scp", "utt2num_frames"))
        self.num_frames = decimals(num_frames.column())
        bad = np.flatnonzero(self.num_frames < 1)
        if len(bad):
            frames = num_frames.value(bad[0])
            raise InputError(f"{directory}/utt2num_frames:{bad[0] + 1}: {frames!r} is not a number of frames")
        self._arks, self._ark_of, self._offsets = _locations(directory / "feats.scp", feats)
        self._speakers, self._speaker_of = numbered(utt2spk.column())
        self._label(directory)
        self.utterances = Names(utt2spk.keys)

    def _label(self, directory: Path) -> None:
        """Set `classes` and `labels`: all speakers, except the placeholders of unlabelled utterances."""
        self.classes, self.labels = self._speakers, self._speaker_of
        unlabelled = unlabelled_speakers(directory)
        if not unlabelled:
            return
        known = np.array([speaker not in unlabelled for speaker in self._speakers])
        self.classes = [speaker for speaker in self._speakers if speaker not in unlabelled]
        self.labels = np.where(known, np.cumsum(known) - 1, UNLABELLED)[self._speaker_of]
        if not self.classes:
            raise InputError(
                f"{directory}: all utterances are unlabelled: the head is trained on labelled speech, so add some"
            )

    def _drop_unlabelled(self) -> None:
        wanted = self.labelled
        self.utterances = Names(self.utterances.names[wanted])
        for name in ("num_frames", "labels", "_ark_of", "_offsets"):
            setattr(self, name, getattr(self, name)[wanted])
        self._speakers, self._speaker_of = self.classes, self.labels  # without placeholders: no group may be empty

    @property
    def num_unlabelled(self) -> int:
        """The number of utterances without a known speaker."""
        return int(np.count_nonzero(self.labels == UNLABELLED))

    @property
    def labelled(self) -> np.ndarray | None:
        """Which utterances are labelled, (n,) bool, or None if all are."""
        return self.labels != UNLABELLED if self.num_unlabelled else None

    def groups(self, sampling: str) -> np.ndarray | None:
        """The groups of `EpochSampler`: speaker or corpus of each utterance, (n,) int64, or None for `utterance`.

        A speaker at another speed is another speaker, and so is each unlabelled utterance. The corpus is the part of a
        speaker's id before the first `-`, without the prefix of a copy at another speed.

        Raises:
            InputError: if `sampling` is `corpus` and a speaker's id has none.
        """
        if sampling == "utterance":
            return None
        if sampling == "speaker":
            return self._speaker_of
        corpora = [unperturbed(speaker).partition("-") for speaker in self._speakers]
        bad = next((name for name, (_, dash, _) in zip(self._speakers, corpora, strict=True) if not dash), None)
        if bad:
            raise InputError(f"train.sampling is corpus, but speaker {bad!r} is not of the form CORPUS-SPEAKER")
        return np.unique([corpus for corpus, _, _ in corpora], return_inverse=True)[1][self._speaker_of]

    def __len__(self) -> int:
        return len(self.labels)

    def _map(self, ark: int) -> MatrixArk:
        """The memory map of an ark. Each process makes it at the first use."""
        if ark not in self._maps:
            self._maps[ark] = MatrixArk(self._arks[ark])
        return self._maps[ark]

    def __getitem__(self, request: Request) -> Batch:
        epoch, numbers = request
        config = self.config
        draws = uniforms(self.seed, epoch, numbers, config.num_draws)
        reverb = noise = None
        if config.distorted:
            order, reverb, noise = self._distortions(draws[:, -NUM_DRAWS:])
            numbers, draws = numbers[order], draws[order]
        utterances = numbers % len(self)
        starts = pick(draws[:, 0], np.maximum(self.num_frames[utterances] - config.frames, 0) + 1)
        raw, low, step = self._read(utterances, starts)
        frames = bands = None
        if config.spec_augment.num_draws:
            masks = draws[:, 1 : 1 + config.spec_augment.num_draws]
            masked = spec_augment(masks, config.frames, self.num_mels, config.spec_augment)
            frames, bands = (torch.from_numpy(~mask).float() for mask in masked)
            frames, bands = frames[:, :, None], bands[:, None, :]
        labels = torch.from_numpy(self.labels[utterances])
        return Batch(torch.from_numpy(utterances), labels, raw, low, step, frames, bands, config.cmn, reverb, noise)

    def _distortions(self, draws: np.ndarray) -> tuple[np.ndarray, Reverb | None, Noise | None]:
        """Choose from draws (B, NUM_DRAWS): the order of the batch, its reverberation and its noise."""
        config = self.config
        # 0 reverberation, 1 noise, 2 neither
        kinds = np.digitize(draws[:, 0], [config.reverb.probability, config.distorted])
        order = np.argsort(kinds, kind="stable")
        reverberant, noisy = draws[kinds == 0, 1:], draws[kinds == 1, 1:]
        reverb = draw_reverb(reverberant, config.reverb, self.acoustics.frame_seconds) if len(reverberant) else None
        return order, reverb, self._draw_noise(noisy) if len(noisy) else None

    def _draw_noise(self, draws: np.ndarray) -> Noise:
        """Noise of the length of a crop from draws (N, 3). A shorter clip is repeated."""
        drawn = pick(draws[:, 0], len(self._noise_clips))
        clips = self._noise_clips[drawn]
        starts = pick(draws[:, 1], np.maximum(self._noise.num_frames[clips] - self.config.frames, 0) + 1)
        raw, low, step = self._noise._read(clips, starts)
        snr = draw_snr(draws[:, 2], self._noise_kinds[drawn], self.config.noise.snr)
        weights = self.acoustics.band_weights
        weights = torch.ones(self.num_mels) if weights is None else torch.from_numpy(weights).float()
        return Noise(raw, low, step, snr, weights)

    def _read(self, utterances: np.ndarray, starts: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Read the bytes of a batch of crops, (B, T, F) uint8, and low and step of each crop, (B, 1, 1)."""
        frames, mels = self.config.frames, self.num_mels
        if self._resident is not None:
            return self._resident.read(utterances, starts, frames)
        raw = np.empty((len(utterances), frames * mels), dtype=np.uint8)
        scales = []
        for row, (matrix, start) in enumerate(zip(self._matrices(utterances), starts.tolist(), strict=True)):
            scales.append((matrix.low, matrix.step))
            crop = matrix.data[start * mels : (start + frames) * mels]
            raw[row] = crop if matrix.rows >= frames else np.resize(crop, frames * mels)
        low, step = torch.tensor(scales, dtype=torch.float32).view(-1, 2, 1, 1).unbind(1)
        return torch.from_numpy(raw).view(-1, frames, mels), low, step

    def _matrices(self, utterances: np.ndarray) -> Iterator[ByteMatrix]:
        """Find utterances in their arks, and compare their sizes with the tables."""
        wanted = (utterances, self._ark_of[utterances], self._offsets[utterances], self.num_frames[utterances])
        for utterance, ark, offset, rows in zip(*map(np.ndarray.tolist, wanted), strict=True):
            matrix = self._map(ark).matrix(self.utterances[utterance], offset)
            if matrix.rows != rows or matrix.columns != self.num_mels:
                raise InputError(
                    f"{self._arks[ark]}: utterance {self.utterances[utterance]!r} is {matrix.rows} x {matrix.columns}, "
                    f"where utt2num_frames and the other utterances say {rows} x {self.num_mels}: run the feature "
                    "stage again"
                )
            yield matrix

    @property
    def num_bytes(self) -> int:
        """The number of bytes of all features, including noise."""
        return int(self.num_frames.sum()) * self.num_mels + (self._noise.num_bytes if self._noise else 0)

    @property
    def is_resident(self) -> bool:
        """Whether the features are in the memory of a device, and this process makes the crops there."""
        return self._resident is not None

    def make_resident(self, device: torch.device) -> None:
        """Copy all features to a device, and make the same crops there from now on. Not for worker processes."""
        matrices = self._matrices(np.arange(len(self)))
        self._resident = ResidentFeatures(matrices, self.num_frames, self.num_mels, device)
        if self._noise is not None:
            self._noise.make_resident(device)


def _same_keys(directory: Path, names: Sequence[str]) -> list[BlockTable]:
    """Read tables and check that they list the same utterances."""
    tables = [read_block_table(directory / name) for name in names]
    if any(not np.array_equal(table.keys, tables[0].keys) for table in tables):
        columns = ([*(key.decode() for key in table.keys.tolist()), "the end"] for table in tables)
        keys = next(row for row in zip_longest(*columns, fillvalue="the end") if len(set(row)) > 1)
        places = ", ".join(f"{name} has {key}" for name, key in zip(names, keys, strict=True))
        raise InputError(
            f"{directory}: the tables do not list the same utterances: {places}; "
            f"run: tools/data_dir.sh validate {directory}"
        )
    return tables


def _locations(path: Path, feats: BlockTable) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Locate the features: the arks, and for each utterance the index of its ark and the offset."""
    column, offsets = feats.located()
    if (offsets < 0).any():
        locations = [location for _, _, location in iter_scp(path)]  # raises for a pipe or a range
        column = np.array([location.ark.encode() for location in locations])
        offsets = np.array([location.offset for location in locations])
    arks, ark_of = numbered(column)
    for number, ark in enumerate(arks):
        if not os.path.exists(ark):
            key = feats.keys[ark_of.tolist().index(number)].decode()
            raise InputError(f"{ark}: no such ark; utterance {key!r} should be in it")
    return arks, ark_of, offsets
