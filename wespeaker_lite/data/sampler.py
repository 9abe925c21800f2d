"""The order of crops in an epoch."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from wespeaker_lite.core.errors import InputError


class Request(NamedTuple):
    """The crops of a batch: the epoch, and the crop numbers, which are pass * number of utterances + utterance."""

    epoch: int
    numbers: np.ndarray


class EpochSampler(torch.utils.data.Sampler[Request]):
    """The requests of an epoch for one rank: its share of each global batch. Seed and epoch determine the order.

    `batch_size` is that of all ranks together. The epoch has `num_batches` batches, by default as many as the
    utterances fill, and a resumed epoch begins at `start_batch`. `groups` (num_utts,) has the index of each utterance's
    speaker or corpus. With it, the numbers of crops of two groups differ by at most one, and the utterances of a group
    take turns.

    `labelled` (num_utts,) bool is None if all are. Otherwise `unlabelled_share` of the crops are of the others; 0 for
    their share of the utterances. Labelled and unlabelled crops are drawn separately. Their numbers in two batches, or
    in two ranks' parts of a batch, differ by at most one.

    Raises:
        InputError: if the ranks cannot share a batch evenly, the utterances do not fill one, or a rank's part of a
            batch would have no labelled crop.
    """

    def __init__(
        self, num_utts: int, batch_size: int, seed: int, epoch: int, *, num_batches: int | None = None,
        start_batch: int = 0, rank: int = 0, world_size: int = 1, groups: np.ndarray | None = None,
        labelled: np.ndarray | None = None, unlabelled_share: float = 0.0,
    ) -> None:  # fmt: skip
        self.num_utts, self.batch_size, self.seed, self.epoch = num_utts, batch_size, seed, epoch
        self.num_batches = num_utts // batch_size if num_batches is None else num_batches
        self.start_batch, self.rank, self.world_size, self.groups = start_batch, rank, world_size, groups
        self.labelled = labelled
        if batch_size % world_size:
            raise InputError(f"a batch of {batch_size} cannot be shared evenly by {world_size} processes")
        if self.num_batches < 1:
            raise InputError(f"{num_utts} utterances do not fill one batch of {batch_size}: take a smaller batch")
        self.labelled_crops = crops = self.num_batches * batch_size
        if labelled is not None:
            share = unlabelled_share or np.count_nonzero(~labelled) / num_utts
            self.labelled_crops = crops - max(1, round(share * crops))
        if self.labelled_crops // self.num_batches < world_size:
            raise InputError(
                f"a batch of {batch_size} crops has {self.labelled_crops / self.num_batches:.2g} labelled ones, and "
                f"each of {world_size} processes needs one: set train.unlabelled_share lower or train.batch_size higher"
            )

    def __len__(self) -> int:
        return self.num_batches - self.start_batch

    def __iter__(self) -> Iterator[Request]:
        order = self._order()
        for batch in range(self.start_batch, self.num_batches):
            numbers = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield Request(self.epoch, numbers[self.rank :: self.world_size])

    def _order(self) -> np.ndarray:
        """The crop numbers of the epoch: passes over the utterances, each in another order.

        Each pass has other numbers, because crops with the same number are the same.
        """
        rng = np.random.default_rng((self.seed, self.epoch))
        crops = self.num_batches * self.batch_size
        if self.labelled is None:
            return _drawn(self.num_utts, self.groups, crops, rng)
        known = self._drawn_from(np.flatnonzero(self.labelled), self.labelled_crops, rng)
        unknown = self._drawn_from(np.flatnonzero(~self.labelled), crops - self.labelled_crops, rng)
        # In a batch, the labelled crops are first, so that each rank gets its part of them.
        firsts = np.arange(self.num_batches + 1) * self.batch_size
        ends = np.arange(self.num_batches + 1) * len(known) // self.num_batches
        parts = ((known, ends), (unknown, firsts - ends))
        return np.concatenate([
            part[bounds[batch] : bounds[batch + 1]] for batch in range(self.num_batches) for part, bounds in parts
        ])  # fmt: skip

    def _drawn_from(self, utterances: np.ndarray, crops: int, rng: np.random.Generator) -> np.ndarray:
        """Crop numbers (crops,) of some utterances (n,)."""
        groups = None if self.groups is None else np.unique(self.groups[utterances], return_inverse=True)[1]
        passes, places = np.divmod(_drawn(len(utterances), groups, crops, rng), len(utterances))
        return utterances[places] + passes * self.num_utts


def _drawn(utterances: int, groups: np.ndarray | None, crops: int, rng: np.random.Generator) -> np.ndarray:
    """Crop numbers (crops,) of a number of utterances, with or without groups."""
    if groups is not None:
        return _in_turn(groups, crops, rng)
    passes = -(-crops // utterances)
    return np.concatenate([rng.permutation(utterances) + turn * utterances for turn in range(passes)])[:crops]


def _in_turn(groups: np.ndarray, crops: int, rng: np.random.Generator) -> np.ndarray:
    """Crop numbers (crops,): rounds over the groups, each in another order. The utterances of a group take turns.

    The second crop of an utterance gets the number of a second pass, as in an epoch without groups.
    """
    sizes = np.bincount(groups)
    rounds = -(-crops // len(sizes))
    members = rng.permutation(len(groups))
    members = members[np.argsort(groups[members], kind="stable")]  # sorted by group, in random order within it
    first = np.cumsum(sizes) - sizes
    drawn = np.concatenate([rng.permutation(len(sizes)) for _ in range(rounds)])[:crops]
    turn = np.repeat(np.arange(rounds), len(sizes))[:crops]
    passes, place = np.divmod(turn, sizes[drawn])
    return members[first[drawn] + place] + passes * len(groups)
