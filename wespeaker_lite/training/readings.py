"""Losses and accuracies of steps, which stay on the device until they are read."""

from typing import NamedTuple

import torch
from torch import Tensor

from wespeaker_lite.training.distributed import Ranks
from wespeaker_lite.training.learner import Losses


class Reading(NamedTuple):
    """The values of a step by name, averaged over all processes, and the seconds that it waited for data."""

    values: dict[str, float]
    waited: float


class Readings:
    """The values of the steps since the last `read`.

    Reading makes the host wait for the device. If it did so at each step, the GPU would be idle in between.
    """

    def __init__(self) -> None:
        self._rows: list[Tensor] = []
        self._names: list[tuple[str, ...]] = []
        self._waited: list[float] = []

    def add(self, losses: Losses, waited: float) -> None:
        """Add the losses of a step, without waiting for the device."""
        values = {"loss": losses.total, **losses.parts, "accuracy": losses.correct}
        self._rows.append(torch.stack([value.detach().float() for value in values.values()]))
        self._names.append(tuple(values))
        self._waited.append(waited)

    def read(self, ranks: Ranks) -> list[Reading]:
        """The steps since the last call, oldest first. All processes must call this after the same step."""
        if not self._rows:
            return []
        numbers = iter(ranks.mean(torch.cat(self._rows)).tolist())
        steps = [{name: next(numbers) for name in names} for names in self._names]
        readings = [Reading(values, waited) for values, waited in zip(steps, self._waited, strict=True)]
        self.__init__()
        return readings
