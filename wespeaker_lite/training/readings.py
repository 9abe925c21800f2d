"""Losses and accuracy of steps, which stay on the device until they are read."""

from typing import NamedTuple

import torch
from torch import Tensor

from wespeaker_lite.training.distributed import Ranks
from wespeaker_lite.training.learner import Losses


class Reading(NamedTuple):
    """What a step gave: its values by name, the means over all processes, and the seconds that it waited for data."""

    values: dict[str, float]
    waited: float


class Readings:
    """The values of the steps since the last `read`. To read them, the host waits until the device has computed them;
    a host that waits at each step cannot give a GPU its work in time."""

    def __init__(self) -> None:
        self._rows: list[Tensor] = []
        self._names: list[tuple[str, ...]] = []
        self._waited: list[float] = []

    def add(self, losses: Losses, waited: float) -> None:
        """Take in the losses of a step, without waiting for them."""
        values = {"loss": losses.total, **losses.parts, "accuracy": losses.correct}
        self._rows.append(torch.stack([value.detach().float() for value in values.values()]))
        self._names.append(tuple(values))
        self._waited.append(waited)

    def read(self, ranks: Ranks) -> list[Reading]:
        """The steps since the last call, oldest first; all processes must call this after the same step."""
        if not self._rows:
            return []
        numbers = iter(ranks.mean(torch.cat(self._rows)).tolist())
        steps = [{name: next(numbers) for name in names} for names in self._names]
        readings = [Reading(values, waited) for values, waited in zip(steps, self._waited, strict=True)]
        self.__init__()
        return readings
