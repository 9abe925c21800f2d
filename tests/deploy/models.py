"""A small BC-CMT with weights as after training, for the tests of deployment."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.recipe import trained_model
from wespeaker_lite.recipe.experiment import from_given

SMALL = {"name": "bc_cmt", "channels": [8, 8], "depth": [1, 1], "strides": [2, 2], "embed_dim": 8}


def make_model(path: Path, features: Mapping[str, Any] | None = None) -> Path:
    config = to_mapping(from_given({"model": SMALL, "features": features or {"num_mels": 40}}, "test"))
    torch.manual_seed(0)
    model = with_statistics(trained_model.build_model(config), config["features"]["num_mels"])
    trained_model.save(path, trained_model.TrainedModel(config, model, None, []))
    return path


@torch.no_grad()
def with_statistics(model: nn.Module, num_mels: int) -> nn.Module:
    """Set the norms as after training: statistics other than 0 and 1, gains and biases other than 1 and 0."""
    for name, parameter in model.named_parameters():
        if "norm" in name or ".bn" in name or "log_scale" in name:
            parameter.add_(0.3 * torch.randn_like(parameter))
    model.train()(3 * torch.randn(16, 60, num_mels))
    return model.eval()
