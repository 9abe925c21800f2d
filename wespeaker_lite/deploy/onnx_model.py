"""Exported models of this package, wespeaker and 3D-Speaker, as networks for `SpeakerModel`."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wespeaker_lite.audio.fbank import FbankConfig
from wespeaker_lite.core.config import from_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.deploy.front_end import FrontEnd
from wespeaker_lite.recipe.stamps import check_made

METADATA = "wespeaker_lite"  # key of the metadata that describe, as JSON, the input of our files
INSTALL = "tools/install.sh --extras export"


class OnnxNetwork(nn.Module):
    """A session of onnxruntime: feats (B, T, num_mels) or samples (B, n) -> embeddings (B, embed_dim)."""

    def __init__(self, path: Path, threads: int) -> None:
        super().__init__()
        self._session = _session(path, threads)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self.metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        if len(inputs) != 1 or len(inputs[0].shape) not in (2, 3) or len(outputs[0].shape) != 2:
            shapes = ", ".join(f"{value.name} {value.shape}" for value in (*inputs, *outputs))
            raise InputError(f"{path}: not a speaker model with one input and (B, D) embeddings: {shapes}")
        self.input, self.input_shape = inputs[0].name, inputs[0].shape
        self._output = outputs[0].name
        size = outputs[0].shape[1]
        self.embed_dim = size if isinstance(size, int) else self._dim_of_an_example()

    def forward(self, feats: Tensor, lengths: Tensor | None = None) -> Tensor:
        if lengths is not None:
            raise ValueError("an exported model needs batches of equal lengths")
        (embeddings,) = self._session.run([self._output], {self.input: feats.numpy()})
        return torch.from_numpy(embeddings)

    def _dim_of_an_example(self) -> int:
        shape = [1, 200, self.input_shape[-1]] if len(self.input_shape) == 3 else [1, 32000]
        return self(torch.zeros(shape)).shape[1]


def cosines(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Cosines (B,) of the rows of two arrays (B, D). A row of zeros has cosine 0, and nan stays nan."""
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    return (one * two).sum(1) / np.maximum(norms, 1e-12)


def load(path: Path) -> tuple[OnnxNetwork, FbankConfig, Callable[[np.ndarray], Tensor], str]:
    """Load an exported model.

    A file without our metadata counts as wespeaker's (hamming window, samples in the range of 16-bit integers). If its
    input has the name `feature`, or its metadata say so, it counts as 3D-Speaker's (samples in [-1, 1]).

    Returns:
        The network; its features; its front end, which maps samples (n,) to the network's input without the batch axis;
        and the digest of the weights that it was exported from, empty if unknown.

    Raises:
        InputError: if the file is missing or not a speaker model, or onnxruntime is not installed.
    """
    check_made(path)
    network = OnnxNetwork(path, torch.get_num_threads())
    ours = network.metadata.get(METADATA)
    if ours is not None:
        return network, *_our_front_end(path, ours)
    front_end = _their_front_end(path, network)
    return network, front_end.features, front_end, ""


def _session(path: Path, threads: int) -> Any:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise InputError(f"{path}: exported models need onnxruntime, which is missing: {INSTALL}") from error
    try:
        return session_of(str(path), threads)
    except Exception as error:  # unknown bytes can raise any exception
        raise InputError(f"{path}: not a model that onnxruntime can read: {' '.join(str(error).split())}") from error


def session_of(model: str | bytes, threads: int) -> Any:
    """A session of onnxruntime on the CPU, from the path or the bytes of a model."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # only errors, which are also raised
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads leave the core to others
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _our_front_end(path: Path, text: str) -> tuple[FbankConfig, Callable[[np.ndarray], Tensor], str]:
    try:
        record = json.loads(text)
        features, cmn, takes_samples = record["features"], bool(record["cmn"]), record["input"] == "samples"
        weights = str(record.get("weights", ""))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: its metadata {METADATA} cannot be read ({error}); export it again") from error
    config = from_mapping(FbankConfig, features, f"{path}: features")
    return config, torch.from_numpy if takes_samples else FrontEnd(config, cmn), weights


def _their_front_end(path: Path, network: OnnxNetwork) -> FrontEnd:
    metadata, num_mels = network.metadata, network.input_shape[-1]
    framework = metadata.get("framework", "3d-speaker" if network.input == "feature" else "wespeaker")
    if framework not in ("wespeaker", "3d-speaker") or len(network.input_shape) != 3:
        raise InputError(f"{path}: model of {framework} with the input {network.input}: its front end is unknown")
    known = {"num_mels": num_mels if isinstance(num_mels, int) else 80}
    if (rate := metadata.get("sample_rate", "")).isdigit():
        known["sample_rate"] = int(rate)
    if framework == "wespeaker":
        return FrontEnd(FbankConfig(window="hamming", **known), in_ark=False)
    return FrontEnd(FbankConfig(**known), in_ark=False, full_scale=1.0)
