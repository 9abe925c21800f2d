"""The file of a trained model: a network, its margin head, its classes, and its config."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wespeaker_lite import models
from wespeaker_lite.audio.fbank import FbankConfig
from wespeaker_lite.core import plugins
from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.tensor_files import load_tensors, save_tensors
from wespeaker_lite.models import margin


@dataclass
class TrainedModel:
    """A network in evaluation mode. For imported weights, `head` is None and `classes` is empty."""

    config: dict[str, Any]  # the resolved config, as plain mappings
    model: nn.Module
    head: nn.Module | None
    classes: list[str]

    @property
    def num_mels(self) -> int:
        """Mel bins of the features that the network reads."""
        return self.config["features"]["num_mels"]


def save(path: str | Path, trained: TrainedModel) -> None:
    """Write a trained model. The file appears whole or not at all."""
    record = {
        "config": trained.config,
        "classes": trained.classes,
        "model": trained.model.state_dict(),
        "head": trained.head.state_dict() if trained.head else None,
    }
    save_tensors(path, record)


def load(path: str | Path) -> TrainedModel:
    """Read a trained model onto the CPU, in evaluation mode.

    Raises:
        InputError: if the file is missing, cut, or not a trained model.
    """
    record = load_record(path)
    config, classes = record["config"], record["classes"]
    try:
        model = build_model(config)
        head = build_head(config, model.embed_dim, len(classes)) if record["head"] is not None else None
        model.load_state_dict(record["model"])
        if head is not None:
            head.load_state_dict(record["head"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:  # the file was manipulated
        raise InputError(f"{path}: the weights do not fit its config: {' '.join(str(error).split())}") from error
    model.eval()
    if head is not None:
        head.eval()
    return TrainedModel(config, model, head, classes)


def digest(model: nn.Module) -> str:
    """SHA-256 of a network's weights, to tell whether two files hold the same one; no head or config counts."""
    found = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def build_model(config: Mapping[str, Any]) -> nn.Module:
    """Build the network of a resolved config, with random weights."""
    options = dict(config["model"])
    return models.build(options.pop("name"), options, config["features"]["num_mels"])


def build_head(config: Mapping[str, Any], embed_dim: int, num_classes: int) -> nn.Module:
    """Build the margin head of a resolved config, with random weights."""
    return margin.build_head(config["head"], embed_dim, num_classes)


def shared_classes(ours: Sequence[str], theirs: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The indices of the common classes in both lists, (n,) int64 each, in the order of the first."""
    place = {name: number for number, name in enumerate(theirs)}
    pairs = [(number, place[name]) for number, name in enumerate(ours) if name in place]
    first, second = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).unbind(1)
    return first, second


def load_record(path: str | Path) -> dict[str, Any]:
    """Read the file as a mapping of tensors and plain values (`weights_only`: it cannot run code)."""
    try:
        record = load_tensors(path)
    except InputError as error:
        if not Path(path).exists():
            raise
        raise InputError(
            f"{error}; remove it: if it was trained here, stage 4 (3 for a teacher) makes it again from its "
            "checkpoints; else get it again"
        ) from error
    missing = {"config", "classes", "model", "head"} - record.keys()
    if missing:
        raise InputError(f"{path}: not a trained model, it lacks {', '.join(sorted(missing))}")
    config, classes = record["config"], record["classes"]
    if not isinstance(config, dict) or not isinstance(classes, list) or not all(isinstance(c, str) for c in classes):
        raise InputError(f"{path}: not a trained model: its config or its classes are malformed")
    _add_new_options(config)
    return record


def _add_new_options(config: dict[str, Any]) -> None:
    """Add the defaults of options of front end and network that are newer than the model."""
    features, network = config.get("features"), config.get("model")
    if isinstance(features, dict):
        config["features"] = to_mapping(FbankConfig()) | features
    if isinstance(network, dict) and network.get("name") in plugins.names(models.__name__):
        defaults = plugins.config_class(models.__name__, network["name"])()
        config["model"] = to_mapping(defaults) | network
