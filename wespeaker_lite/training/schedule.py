"""Learning rate and margin as functions of the place in training: no state, so nothing to save or restore."""

import math
from dataclasses import dataclass
from typing import Literal

from wespeaker_lite.core.config import bounded
from wespeaker_lite.models.margin import LARGEST_MARGIN


@dataclass(frozen=True)
class LearningRateConfig:
    """Linear warm-up to `peak`, then a decay to `final` at the end of training; see `learning_rate`.

    Attributes:
        name: the form of the decay. `exponential` is wespeaker's. `cosine`: half a cosine. `one_cycle`: as cosine, with
            a warm-up by half a cosine from a 25th of the peak. `constant`: no decay.
        peak: the largest learning rate.
        final: the learning rate at the end. Not used by `constant`.
        warmup_epochs: length of the warm-up in epochs.
    """

    name: Literal["cosine", "exponential", "one_cycle", "constant"] = "exponential"
    peak: float = bounded(0.1, 1e-12, 100)
    final: float = bounded(5.0e-5, 1e-12, 100)
    warmup_epochs: float = bounded(6.0, 0, 100_000)

    def __post_init__(self) -> None:
        if self.final > self.peak:
            raise ValueError("expected final <= peak")


@dataclass(frozen=True)
class MarginConfig:
    """The margin on its way to that of the head.

    Attributes:
        name: the form of the growth. `exponential` is wespeaker's, fast at first.
        initial: the margin until `start_epoch`.
        start_epoch: where the margin begins to grow.
        end_epoch: where the margin is that of the head. It stays so to the end.
    """

    name: Literal["exponential", "linear"] = "exponential"
    initial: float = bounded(0.0, 0, LARGEST_MARGIN)
    start_epoch: float = bounded(20.0, 0, 100_000)
    end_epoch: float = bounded(40.0, 0, 100_000)

    def __post_init__(self) -> None:
        if self.end_epoch < self.start_epoch:
            raise ValueError("expected end_epoch >= start_epoch")


def learning_rate(config: LearningRateConfig, epoch: float, epochs: float) -> float:
    """The learning rate at `epoch` (a fraction within an epoch counts) of `epochs`.

    exponential is wespeaker's: the decay runs from the very start and the warm-up multiplies it. cosine and one_cycle
    decay by half a cosine after the warm-up; one_cycle also warms up by a cosine, from a 25th of the peak (Smith and
    Topin 2019).
    """
    warm = min(1.0, epoch / config.warmup_epochs) if config.warmup_epochs > 0 else 1.0
    if config.name == "constant":
        return config.peak * warm
    if config.name == "exponential":
        return config.peak * math.exp(epoch / epochs * math.log(config.final / config.peak)) * warm
    if warm < 1.0:
        if config.name == "cosine":
            return config.peak * warm
        return config.peak * (1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * warm)) / 2)
    decayed = min(1.0, (epoch - config.warmup_epochs) / max(epochs - config.warmup_epochs, 1e-9))
    return config.final + (config.peak - config.final) * (1 + math.cos(math.pi * decayed)) / 2


def margin(config: MarginConfig, final: float, epoch: float) -> float:
    """The margin at `epoch` on the way to `final`; exponential is wespeaker's form, fast at first."""
    if epoch >= config.end_epoch:
        return final
    if epoch < config.start_epoch:
        return config.initial
    way = (epoch - config.start_epoch) / (config.end_epoch - config.start_epoch)
    if config.name == "exponential":
        way = 1.0 - math.exp(way * math.log(1e-3))
    return config.initial + (final - config.initial) * way
