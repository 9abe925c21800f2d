"""8 bits where a network bears it: the layers that are harmed most stay in floats."""

import numpy as np
import pytest
import torch

onnx = pytest.importorskip("onnx", reason="needs tools/install.sh --extras export")
pytest.importorskip("onnxruntime", reason="needs tools/install.sh --extras export")

from wespeaker_lite.core.errors import InputError  # noqa: E402
from wespeaker_lite.deploy.graphs.builder import Graph  # noqa: E402
from wespeaker_lite.deploy.onnx_model import session_of  # noqa: E402
from wespeaker_lite.deploy.quantise import QuantiseOptions, quantise  # noqa: E402
from wespeaker_lite.deploy.storage import stored  # noqa: E402

MELS = 8
FEATS = [np.random.default_rng(number).normal(0, 1, (40, MELS)).astype(np.float32) for number in range(12)]


def network(fragile: float) -> "onnx.ModelProto":
    """Three products and a mean; what goes into the second one has a channel `fragile` times as large as the others,
    which the product then makes small again, so that a common step of 8 bits rounds the others away."""
    torch.manual_seed(0)
    graph = Graph()
    maps = graph.add("Transpose", graph.input("feats", ["B", "T", MELS]), perm=[0, 2, 1])
    first, second, third = torch.randn(16, MELS, 1), torch.randn(16, 16, 1) / 4, torch.randn(12, 16, 1) / 4
    first[0] *= fragile
    second[:, 0] /= fragile
    maps = graph.conv(graph.add("Identity", maps), torch.eye(MELS)[..., None], None)  # the first is no candidate
    for weight in (first, second, third):
        maps = graph.conv(maps, weight, torch.zeros(len(weight)))
    graph.output(graph.mean(maps, -1, keep=False), "embs", ["B", 12])
    return graph.model({"who": "test"})


def in_8_bits(model: "onnx.ModelProto") -> int:
    """How many convolutions read values that were rounded."""
    rounded = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return sum(node.op_type == "Conv" and node.input[0] in rounded for node in model.graph.node)


def test_what_is_not_harmed_is_computed_in_8_bits() -> None:
    model = network(fragile=1.0)
    found = quantise(model, FEATS, QuantiseOptions(smallest_cosine=0.99))
    assert (found.products, found.kept, in_8_bits(found.model)) == (3, {}, 3)
    assert 0.99 <= found.cosine < 1
    assert {entry.key: entry.value for entry in found.model.metadata_props} == {"who": "test"}
    wanted, other = (
        session_of(m.SerializeToString(), 1).run(None, {"feats": FEATS[0][None]}) for m in (model, found.model)
    )
    np.testing.assert_allclose(other[0], wanted[0], atol=0.1)


def test_products_that_are_harmed_stay_in_floats() -> None:
    found = quantise(network(fragile=300.0), FEATS, QuantiseOptions(smallest_cosine=0.99))
    assert 1 <= len(found.kept) <= 2
    assert found.products == in_8_bits(found.model) == 3 - len(found.kept)
    assert max(found.kept.values()) > 0.01  # what it alone costs
    assert found.cosine >= 0.99


def test_a_network_that_8_bits_change_too_much_is_refused() -> None:
    with pytest.raises(InputError, match="8 bits change the embeddings of this network too much"):
        quantise(network(fragile=1.0), FEATS, QuantiseOptions(smallest_cosine=1.1))
    with pytest.raises(InputError, match="2 utterances for calibration"):
        quantise(network(fragile=1.0), FEATS[:2], QuantiseOptions())


def test_matrices_are_stored_on_a_grid_of_each_row() -> None:
    model = network(fragile=1.0)
    arrays = {w.name: onnx.numpy_helper.to_array(w) for w in stored(model, "int8").graph.initializer}
    weights = {w.name: onnx.numpy_helper.to_array(w) for w in model.graph.initializer}
    matrices = [name for name, array in weights.items() if array.ndim > 1]
    assert len(matrices) == 4
    for name in matrices:
        wide = arrays[f"{name}_int8"] * arrays[f"{name}_step"]
        rows = np.abs(weights[name]).max(axis=(1, 2), keepdims=True)
        assert np.abs(wide - weights[name]).max() <= (rows / 254).max() * 1.001
        assert np.abs(arrays[f"{name}_int8"]).max(axis=(1, 2)).min() == 127
