"""Build an optimiser from its config."""

from collections.abc import Iterable, Mapping

import torch
from torch import nn

from wespeaker_lite.recipe.train_config import OptimiserConfig


def build_optimiser(
    config: OptimiserConfig,
    parameters: Iterable[nn.Parameter],
    fused: bool = False,
    rates: Mapping[nn.Parameter, float] | None = None,
) -> torch.optim.Optimizer:
    """Build an optimiser. Biases and gains of normalisation, all one-dimensional, have no weight decay.

    fused: one GPU kernel for all parameters. It skips bad steps of fp16 on the GPU; otherwise the host must wait.
    rates: learning rates of some parameters, as multiples of the others'. `set_learning_rate` applies them.
    """
    rates = rates or {}
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = []
    for rate in dict.fromkeys([1.0, *rates.values()]):
        own = [parameter for parameter in trained if rates.get(parameter, 1.0) == rate]
        groups += [
            {"params": [p for p in own if p.ndim > 1], "weight_decay": config.weight_decay, "rate": rate},
            {"params": [p for p in own if p.ndim <= 1], "weight_decay": 0.0, "rate": rate},
        ]
    if config.name == "sgd":
        options = {"momentum": config.momentum, "nesterov": config.momentum > 0}
        return torch.optim.SGD(groups, lr=0.0, **options, fused=fused or None)
    return torch.optim.AdamW(groups, lr=0.0, betas=(config.momentum, 0.999), fused=fused or None)


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the next step, for each group times its multiple."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["rate"]
