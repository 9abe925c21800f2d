"""Learning rate and margin as functions of the place in training: no state, so nothing to save or restore."""

import math

from wespeaker_lite.recipe.train_config import LearningRateConfig, MarginConfig


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
