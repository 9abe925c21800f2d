"""Tests of wespeaker_lite.training.fake_quantisation."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from tests.training.learners import MELS, NETWORKS, batch_of
from tests.training.runs import assert_same, run_here
from wespeaker_lite import models
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.deploy import graphs
from wespeaker_lite.deploy.quantise import _candidates
from wespeaker_lite.recipe import trained_model
from wespeaker_lite.recipe.experiment import Experiment
from wespeaker_lite.training.fake_quantisation import (
    AVERAGING,
    FakeQuantisation,
    RoundedInput,
    RoundedWeight,
    products_of,
)
from wespeaker_lite.training.trainer import batches_of_epoch

Small = Callable[..., Experiment]
# Products that the exported graph computes in two parts: the attention's context in the pooling of ECAPA-TDNN, and the
# lifts of BC-CMT before its second patch and after both blocks.
MORE_OUTPUTS = {"ecapa_tdnn": 8, "resnet": 0, "bc_cmt": 8 + 2 * 8}
# Layers that are not called: the first in the pooling of ECAPA-TDNN; queries, keys and values of BC-CMT's two blocks.
NOT_CALLED = {"ecapa_tdnn": 1, "resnet": 0, "bc_cmt": 2 * 3}
BC_CMT = {"model": {"name": "bc_cmt", **NETWORKS["bc_cmt"]}}


@pytest.mark.parametrize(("shape", "axes"), [((5, 7), (1,)), ((4, 3, 2), (1, 2)), ((4, 3, 2), (1,))])
def test_weights_are_rounded_with_a_step_for_each_output(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    exact = weight.detach().double().numpy()
    steps = np.abs(exact).max(axes, keepdims=True) / 127
    rounded = RoundedWeight(axes)(weight)
    np.testing.assert_allclose(rounded.detach().numpy(), np.round(exact / steps) * steps, rtol=1e-6, atol=1e-7)
    assert len(np.unique(np.round(exact / steps))) > 5  # else the test would not see a wrong step
    rounded.square().sum().backward()
    torch.testing.assert_close(weight.grad, 2 * rounded.detach())  # straight through


def test_inputs_are_rounded_in_the_range_so_far() -> None:
    rounding, rng = RoundedInput(), torch.Generator().manual_seed(0)
    first, second = torch.randn(4, 6, generator=rng) + 1, 3 * torch.randn(4, 6, generator=rng)
    rounding(first)
    second.requires_grad_()
    rounded = rounding(second)
    ranges = [(min(values.min().item(), 0), max(values.max().item(), 0)) for values in (first, second.detach())]
    low, high = (start + AVERAGING * (end - start) for start, end in zip(*ranges, strict=True))
    step = (high - low) / 255
    zero = round(-low / step)
    exact = second.detach().double().numpy()
    wanted = (np.clip(np.round(exact / step) + zero, 0, 255) - zero) * step
    np.testing.assert_allclose(rounded.detach().numpy(), wanted, rtol=1e-5, atol=1e-5)
    rounded.sum().backward()
    inside = (np.round(exact / step) + zero >= 0) & (np.round(exact / step) + zero <= 255)
    assert 0 < inside.sum() < inside.size
    np.testing.assert_array_equal(second.grad.numpy(), inside)


def test_inputs_that_are_all_zero_stay_zero() -> None:
    assert RoundedInput()(torch.zeros(2, 3)).eq(0).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_rounded_layers_are_those_of_the_exported_graph(name: str) -> None:
    network = models.build(name, NETWORKS[name], num_mels=MELS).eval()
    graph = graphs.of_feats(name, network, MELS, {})
    sizes = {weight.name: tuple(weight.dims) for weight in graph.graph.initializer}
    candidates = set(_candidates(graph))
    of_graph = [sizes[node.input[1]] for node in graph.graph.node if node.name in candidates]
    outputs = sum(size[0] for size in of_graph)
    ours = sum(_outputs(layer) for layer in products_of(network))
    assert outputs == ours + MORE_OUTPUTS[name]


def _outputs(layer: nn.Module) -> int:
    return layer.bias.numel() if type(layer).__name__ == "GroupedLinear" else layer.weight.shape[0]


@pytest.mark.parametrize("name", NETWORKS)
def test_training_sees_rounded_products_and_evaluation_does_not(name: str) -> None:
    network = models.build(name, NETWORKS[name], num_mels=MELS)
    feats, _ = batch_of()
    keys = set(network.state_dict())
    weights = {key: value.clone() for key, value in network.named_parameters()}
    torch.manual_seed(0)
    plain = network.train()(feats).detach()
    quantisation = FakeQuantisation(network)
    rounded = network.train()(feats)
    assert not torch.equal(plain, rounded)
    assert torch.nn.functional.cosine_similarity(plain, rounded).min() > 0.9
    rounded.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in network.parameters())
    seen = [rounding.high.item() for rounding in (*quantisation.inputs, *quantisation.means)]
    assert seen.count(0) == NOT_CALLED[name]
    assert len(quantisation.means) == (2 if name == "bc_cmt" else 0)
    network.eval()(feats)
    assert [rounding.high.item() for rounding in (*quantisation.inputs, *quantisation.means)] == seen
    quantisation.remove()
    assert set(network.state_dict()) == keys
    assert not any(parametrize.is_parametrized(module) for module in network.modules())
    for key, value in network.named_parameters():
        assert torch.equal(value, weights[key]), key


def test_the_mean_that_attention_over_time_reads_is_rounded() -> None:
    layer = models.build("bc_cmt", NETWORKS["bc_cmt"], num_mels=MELS).stages[0][0].attention.train()
    maps = torch.randn(5, 2, 12, 8, generator=torch.Generator().manual_seed(0))
    sums, mean = layer.freq(maps)
    FakeQuantisation(nn.Sequential(nn.Conv1d(2, 2, 1), layer))
    same, rounded = layer.freq(maps)
    assert torch.equal(same, sums)
    step = (mean.max() - mean.min()) / 255
    assert 0.4 * step < (rounded - mean).abs().max() <= 0.501 * step


def test_a_trained_model_is_a_plain_one_and_the_key_costs_nothing_if_it_is_not_set(
    small: Small, small_data: Path, tmp_path: Path
) -> None:
    quantised = run_here(small(**BC_CMT, train={"quantize": True}), small_data, tmp_path / "quantised")
    plain = run_here(small(**BC_CMT), small_data, tmp_path / "plain")
    assert quantised.model.state_dict().keys() == plain.model.state_dict().keys()
    with pytest.raises(AssertionError):
        assert_same(quantised, plain)
    assert "quantize" not in trained_model.load(tmp_path / "plain/final.pt").config["train"]
    assert_same(plain, run_here(small(**BC_CMT, train={"quantize": False}), small_data, tmp_path / "off"))


def test_several_processes_are_refused(small: Small) -> None:
    with pytest.raises(InputError, match="ranges of inputs are those of one process"):
        batches_of_epoch(small(train={"quantize": True}).train, 40, processes=2)


def test_a_network_without_products_is_refused() -> None:
    with pytest.raises(InputError, match="no products"):
        FakeQuantisation(nn.Sequential(nn.Conv1d(2, 2, 1), nn.ReLU()))
