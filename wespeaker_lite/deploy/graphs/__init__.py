"""ONNX graphs of the networks for inference. Norms are folded into neighbouring layers where possible.

The graph of the network models/X is the module X here, with a function `build(graph, model, feats) -> embeddings`.
Batch size and length are free. Nothing in a graph depends on the length of an example, in contrast to tracing.
"""

import copy
import importlib
from collections.abc import Mapping

import onnx
import torch
from torch import nn

from wespeaker_lite.audio.fbank import FbankConfig
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.deploy.graphs.builder import Graph
from wespeaker_lite.deploy.graphs.front_end import fbank


@torch.no_grad()
def of_feats(name: str, model: nn.Module, num_mels: int, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """The graph of the network `name`, from `feats` (B, T, num_mels) to `embs` (B, embed_dim).

    Raises:
        InputError: if the network has no module here.
    """
    graph = Graph()
    _network(graph, name, model, graph.input("feats", ["B", "T", num_mels]))
    return graph.model(metadata)


@torch.no_grad()
def of_samples(
    name: str, model: nn.Module, features: FbankConfig, cmn: bool, metadata: Mapping[str, str]
) -> onnx.ModelProto:
    """The graph of the network and its front end, from `samples` (B, n) in [-1, 1] to `embs` (B, embed_dim).

    Raises:
        InputError: as `of_feats`.
    """
    graph = Graph()
    samples = graph.input("samples", ["B", "n"])
    _network(graph, name, model, fbank(graph, samples, features, cmn))
    return graph.model(metadata)


def _network(graph: Graph, name: str, model: nn.Module, feats: str) -> None:
    try:
        module = importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        raise InputError(f"the network {name} has no graph to export: write {__name__}.{name}") from error
    # Norms are folded in 64 bits, so that only the resulting weights are rounded.
    network = copy.deepcopy(model).cpu().double().eval()
    graph.output(module.build(graph, network, feats), "embs", ["B", model.embed_dim])
