"""Optimisers by config."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from wespeaker_lite.config import bounded


@dataclass(frozen=True)
class OptimiserConfig:
    """SGD with Nesterov momentum (wespeaker's choice) or AdamW; the learning rate comes from its schedule."""

    name: Literal["sgd", "adamw"] = "sgd"
    momentum: float = bounded(0.9, 0, 0.9999)
    weight_decay: float = bounded(1.0e-4, 0, 10)


def build_optimiser(
    config: OptimiserConfig, parameters: Iterable[nn.Parameter], fused: bool = False
) -> torch.optim.Optimizer:
    """Build an optimiser; weight decay leaves biases and the gains of normalisation (all one-dimensional) alone.

    fused: one GPU kernel for all parameters. It also skips a step of fp16 by itself, where others make the host wait.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.name == "sgd":
        options = {"momentum": config.momentum, "nesterov": config.momentum > 0}
        return torch.optim.SGD(groups, lr=0.0, **options, fused=fused or None)
    return torch.optim.AdamW(groups, lr=0.0, betas=(config.momentum, 0.999), fused=fused or None)
