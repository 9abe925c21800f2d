"""Learning rate and margin as functions of the fractional epoch. There is no state to save."""

import math

from wespeaker_lite.recipe.train_config import LearningRateConfig, MarginConfig


def learning_rate(config: LearningRateConfig, epoch: float, epochs: float) -> float:
    """The learning rate at the fractional epoch `epoch` of `epochs`.

    `exponential` is as in wespeaker: the decay begins at once, and the warm-up multiplies it. `cosine` and `one_cycle`
    decay along half a cosine after the warm-up. The warm-up of `one_cycle` is along half a cosine too, from a 25th of
    the peak (Smith and Topin 2019).
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
    """The margin at the fractional epoch `epoch`. `exponential` is as in wespeaker: fast at first."""
    if epoch >= config.end_epoch:
        return final
    if epoch < config.start_epoch:
        return config.initial
    progress = (epoch - config.start_epoch) / (config.end_epoch - config.start_epoch)
    if config.name == "exponential":
        progress = 1.0 - math.exp(progress * math.log(1e-3))
    return config.initial + (final - config.initial) * progress
