"""A small BC-CMT as after training, for the tests of a trained model in use."""

from pathlib import Path

import torch

from wespeaker_lite import trained_model
from wespeaker_lite.config import to_mapping
from wespeaker_lite.experiment import from_given

SMALL = {"name": "bc_cmt", "channels": [8, 8], "depth": [1, 1], "strides": [2, 2], "embed_dim": 8}


def make_model(path: Path) -> Path:
    config = to_mapping(from_given({"model": SMALL, "features": {"num_mels": 40}}, "test"))
    torch.manual_seed(0)
    model = trained_model.build_model(config)
    with torch.no_grad():  # running statistics that are not 0 and 1
        model.train()(torch.randn(16, 60, 40))
    trained_model.save(path, trained_model.TrainedModel(config, model, None, []))
    return path
