"""Checkpoints: the complete state of a run, so that a resumed run gives the same result."""

import logging
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.tensor_files import load_tensors, save_tensors

log = logging.getLogger(__name__)


def random_states() -> dict[str, Any]:
    """The states of all random generators, as tensors and plain values."""
    name, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, keys.tolist(), *rest],
        "python": random.getstate(),
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Restore the states of `random_states`."""
    torch.set_rng_state(states["torch"])
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))


class CheckpointStore:
    """The folder of a run's checkpoints. `epoch_0003_batch_000000.pt` is the end of epoch 3."""

    PATTERN = re.compile(r"epoch_(\d+)_batch_(\d+)\.pt")

    def __init__(self, folder: str | Path, keep: int) -> None:
        self.folder = Path(folder)
        self.keep = keep

    def save(self, epoch: int, batch: int, record: dict[str, Any]) -> None:
        """Save a checkpoint after `epoch` whole epochs and `batch` more batches, then delete old ones.

        The last `keep` ends of epochs are kept, and the last two checkpoints, in case the newest is damaged.
        """
        save_tensors(self.folder / f"epoch_{epoch:04d}_batch_{batch:06d}.pt", record)
        paths = self.paths()
        needed = {*paths[-2:], *self.epoch_ends()[-self.keep :]}
        for path in paths:
            if path not in needed:
                path.unlink()

    def paths(self) -> list[Path]:
        """All checkpoints, oldest first."""
        return sorted(path for path in self.folder.glob("*.pt") if self.PATTERN.fullmatch(path.name))

    def epoch_ends(self) -> list[Path]:
        """The checkpoints at the ends of epochs, oldest first."""
        return [path for path in self.paths() if path.stem.endswith("_batch_000000")]

    def latest(self) -> dict[str, Any] | None:
        """The newest checkpoint that can be read."""
        for unfinished in self.folder.glob(".*.tmp"):  # of a run that was killed while saving
            unfinished.unlink()
        for path in reversed(self.paths()):
            record = self._read(path)
            if record is not None:
                log.info("resuming from %s", path)
                return record
        return None

    def drop_after_gap(self, averaged: Sequence[int], origin: Mapping[str, Any]) -> bool:
        """Find the first of the `averaged` ends of epochs that is damaged, missing or of another `origin`. Delete all
        checkpoints from there on; return whether there was one.

        Training then repeats that epoch, so that the mean is over the weights of an undisturbed run.
        """
        places = {self._place_of(path): path for path in self.paths()}
        newest = max(places, default=(0, 0))
        for end in ((epoch, 0) for epoch in averaged):
            if end < newest and not self._is_of(places.get(end), origin):
                log.warning("%s: the end of epoch %d is needed for the mean and is trained again", self.folder, end[0])
                for path in self.paths():
                    if self._place_of(path) >= end:
                        path.unlink()
                return True
        return False

    def _is_of(self, path: Path | None, origin: Mapping[str, Any]) -> bool:
        record = self._read(path) if path else None
        return record is not None and all(record.get(name) == value for name, value in origin.items())

    def _place_of(self, path: Path) -> tuple[int, int]:
        """The numbers of whole epochs and of more batches before a checkpoint."""
        epoch, batch = self.PATTERN.fullmatch(path.name).groups()
        return int(epoch), int(batch)

    def _read(self, path: Path) -> dict[str, Any] | None:
        """Read a checkpoint. If it cannot be read or has the wrong name, log a warning, rename it to `*.cut`, and
        return None."""
        try:
            record = load_tensors(path)
            if (record["epoch"], record["batch"]) != self._place_of(path):
                raise InputError(f"{path}: holds the end of epoch {record['epoch']}, batch {record['batch']}")
            return record
        except (InputError, KeyError) as error:
            log.warning("%s; it is renamed to *.cut, and an earlier checkpoint is used", error)
            path.rename(path.with_suffix(".cut"))
            return None

    def set_aside(self, changed: Sequence[str]) -> None:
        """Rename the folder to `checkpoints.1` or the next free number, because its checkpoints are of another run."""
        number = 1
        while (aside := self.folder.with_name(f"{self.folder.name}.{number}")).exists():
            number += 1
        self.folder.rename(aside)
        log.warning("the checkpoints are of another run (other %s); they are kept in %s", ", ".join(changed), aside)

    def average(self, number: int) -> dict[str, torch.Tensor]:
        """The mean of the weights over the last `number` ends of epochs, in float64. Integers are those of the last.

        Raises:
            InputError: if fewer checkpoints can be read.
        """
        records = [self._read(path) for path in self.epoch_ends()[-number:]]
        states = [record["learner"] for record in records if record is not None]
        if len(states) < number:
            raise InputError(
                f"{self.folder}: the mean is over the last {number} ends of epochs, only {len(states)} can be read; "
                "run the same command again: the others are trained again"
            )
        mean = dict(states[-1])
        for name, last in mean.items():
            if last.is_floating_point():
                mean[name] = torch.stack([state[name].double() for state in states]).mean(0).to(last.dtype)
        return mean
