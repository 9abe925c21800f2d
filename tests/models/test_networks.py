"""Properties of every network: sizes, shapes, names, and embeddings that do not depend on padding."""

import hashlib

import pytest
import torch
from torch import nn

from wespeaker_lite import models
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.models.next_tdnn import ResponseNorm
from wespeaker_lite.models.redimnet import LearnedMean

REDIMNET = {"channels": 2, "strides": [1, 2, 2], "depth": [1, 2, 1], "reduction": [10, 0, 8], "embed_dim": 24}
SMALL_ECAPA = {"channels": 32, "embed_dim": 24, "mfa_channels": 48}
SMALL_BC_CMT = {"embed_dim": 24, "channels": [8, 8, 16, 16], "depth": [1, 1, 1, 1]}
SMALL = {
    "ecapa": ("ecapa_tdnn", SMALL_ECAPA),
    "ecapa-statistics": ("ecapa_tdnn", {**SMALL_ECAPA, "pooling": "statistics"}),
    "ecapa-no-context": ("ecapa_tdnn", {**SMALL_ECAPA, "global_context": False}),
    "resnet18": ("resnet", {"depth": 18, "width": 4, "embed_dim": 24}),
    "resnet34-attentive": (
        "resnet",
        {"depth": 34, "width": 4, "embed_dim": 24, "pooling": "attentive", "global_context": True},
    ),
    "campplus": ("campplus", {"embed_dim": 24, "channels": 16, "growth": 4}),
    "bc_cmt": ("bc_cmt", SMALL_BC_CMT),
    "bc_cmt-2d": ("bc_cmt", {**SMALL_BC_CMT, "attention": "2d"}),
    "bc_cmt-cosine": ("bc_cmt", {**SMALL_BC_CMT, "scores": "cosine"}),
    "xvector": ("xvector", {"channels": 16, "pooling_channels": 24, "embed_dim": 24}),
    "next_tdnn": ("next_tdnn", {"channels": 16, "depth": [1, 2], "embed_dim": 24}),
    "next_tdnn-light": (
        "next_tdnn",
        {"channels": 16, "depth": [1, 1], "kernels": [65], "light": True, "embed_dim": 24},
    ),
    "redimnet": ("redimnet", {**REDIMNET, "expansion": [1, 2, 1]}),
    "redimnet-convnext": ("redimnet", {**REDIMNET, "expansion": [1, 1, 2], "block": "convnext", "group_width": 4}),
}


def _small(name: str, options: dict) -> nn.Module:
    """A network as after training: no norm is the identity, so an effect of padding is visible."""
    torch.manual_seed(0)
    model = models.build(name, options, 80)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.5)
            module.running_var.uniform_(0.5, 2.0)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.5)
        if isinstance(module, nn.LayerNorm | ResponseNorm | LearnedMean):
            for parameter in module.parameters():
                nn.init.normal_(parameter, parameter.mean().item(), 0.5)
    return model.eval()


def _noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=SMALL)
def network(request) -> nn.Module:
    return _small(*SMALL[request.param])


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("ecapa_tdnn", {"channels": 128}, 2_244_016),
        ("ecapa_tdnn", {"channels": 256}, 3_330_720),
        ("ecapa_tdnn", {"channels": 512}, 6_190_720),
        ("ecapa_tdnn", {"channels": 1024}, 14_657_088),
        ("resnet", {"depth": 18}, 4_105_440),
        ("resnet", {"depth": 34}, 6_634_336),
        ("campplus", {}, 6_848_544),
        ("campplus", {"embed_dim": 512}, 7_176_224),
    ],
)
def test_sizes_equal_those_of_public_implementations(name, options, parameters):
    assert sum(p.numel() for p in models.build(name, options, 80).parameters()) == parameters


B1 = {
    "channels": 12, "strides": [1, 2, 3, 2, 2], "depth": [2, 3, 4, 5, 3], "expansion": [1] * 5,
    "reduction": [0, 0, 12, 12, 8], "block": "convnext", "group_width": 8,
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "options", "num_mels", "parameters", "published"),
    [
        ("xvector", {}, 24, 4_204_508, 4.2e6),
        ("next_tdnn", {}, 80, 1_913_584, 1.9e6),
        ("next_tdnn", {"kernels": [65], "light": True}, 80, 1_649_776, 1.6e6),
        ("redimnet", {}, 60, 1_001_850, 1.0e6),
        ("redimnet", B1, 72, 2_123_480, 2.2e6),
    ],
)
def test_sizes_are_close_to_those_of_the_papers(name, options, num_mels, parameters, published):
    """Exact values show every change. The papers round; for B1 public code also has 2.1 M."""
    assert sum(p.numel() for p in models.build(name, options, num_mels).parameters()) == parameters
    assert parameters == pytest.approx(published, rel=0.04)


@pytest.mark.parametrize(
    ("name", "digest"),
    [("ecapa_tdnn", "5cd78bf274145a71"), ("resnet", "ee592bec65085135"), ("campplus", "0c595e8c70388bb7")],
)
def test_names_and_shapes_match_existing_files(name, digest):
    """The digest of campplus is that of the published weights, so the test does not need their file."""
    tensors = models.build(name, {}, 80).state_dict()
    lines = "".join(f"{key} {tuple(tensors[key].shape)}\n" for key in sorted(tensors))
    assert hashlib.sha256(lines.encode()).hexdigest()[:16] == digest, "files trained before can no longer be loaded"


@pytest.mark.parametrize("frames", [1, 98, 198, 998])
def test_embeddings_of_any_length_have_the_specified_shape(network, frames):
    with torch.no_grad():
        embeddings = network(_noise(2, frames, 80))
    assert embeddings.shape == (2, 24)
    assert network.embed_dim == 24
    assert embeddings.isfinite().all()


def test_padding_does_not_change_an_embedding(network):
    lengths = torch.tensor([230, 1, 2, 3, 99, 100, 199, 200, 201, 202])
    feats = _noise(len(lengths), 230, 80)
    with torch.no_grad():
        alone = torch.cat([network(f[None, :n]) for f, n in zip(feats, lengths.tolist(), strict=True)])
        for row, length in zip(feats, lengths.tolist(), strict=True):
            row[length:] = torch.nan  # the worst that padding can be
        torch.testing.assert_close(network(feats, lengths), alone, rtol=1e-5, atol=1e-5)


def test_lengths_of_a_full_batch_change_nothing(network):
    feats = _noise(3, 150, 80)
    with torch.no_grad():
        torch.testing.assert_close(network(feats, torch.tensor([150] * 3)), network(feats), rtol=1e-5, atol=1e-5)


def test_a_length_beyond_the_batch_is_refused(network):
    with pytest.raises(InputError, match="151 frames"):
        network(_noise(1, 150, 80), torch.tensor([151]))


@pytest.mark.parametrize(
    ("network_id", "shapes"),
    [
        ("ecapa", [(2, 32, 101)] * 3),
        ("resnet18", [(2, 4, 80, 101), (2, 8, 40, 51), (2, 16, 20, 26), (2, 32, 10, 13)]),
        ("campplus", [(2, 32, 51), (2, 64, 51), (2, 64, 51)]),
        ("bc_cmt", [(2, 8, 40, 51), (2, 8, 20, 51), (2, 16, 10, 51), (2, 16, 5, 51)]),
        ("xvector", [(2, 16, 101)] * 4),
        ("next_tdnn", [(2, 16, 101)] * 2),
        ("redimnet", [(2, 2, 80, 101), (2, 4, 40, 101), (2, 8, 20, 101)]),
    ],
)
def test_maps_go_from_shallow_to_deep_and_lead_to_the_same_embedding(network_id, shapes):
    network = _small(*SMALL[network_id])
    feats = _noise(2, 101, 80)
    with torch.no_grad():
        shown = network.activations(feats)
        maps, embeddings = shown.maps, shown.embedding
        kept = [m.clone() for m in maps]
        torch.testing.assert_close(embeddings, network(feats), rtol=0, atol=0)
    assert [tuple(m.shape) for m in maps] == shapes
    assert all(torch.equal(a, b) for a, b in zip(maps, kept, strict=True))


def test_gradients_reach_every_parameter_also_through_the_maps(network):
    network.train()
    shown = network.activations(_noise(3, 24, 80))
    (shown.embedding.square().sum() + sum(m.square().mean() for m in shown.maps)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    network.zero_grad()
    network.eval()


def test_training_steps_run_under_bfloat16_autocast(network):
    network.train()
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = network(_noise(3, 24, 80))
    embeddings.float().square().sum().backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())
    network.zero_grad()
    network.eval()


def test_numbers_of_mel_bins_that_are_not_a_multiple_of_8():
    for name, options in (SMALL["resnet18"], SMALL["campplus"]):
        model = models.build(name, options, 41).eval()
        assert model(_noise(1, 30, 41)).shape == (1, 24)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ecapa", {}, "did you mean 'ecapa_tdnn'"),
        ("pooling", {}, "unknown name 'pooling'"),
        ("os", {}, "known: bc_cmt, campplus, .*ecapa_tdnn, "),
        ("ecapa_tdnn", {"chanels": 8}, "did you mean 'channels'"),
        ("ecapa_tdnn", {"channels": 100}, "scale 8 must"),
        ("ecapa_tdnn", {"embed_dim": 0}, "0 does not lie in"),
        ("ecapa_tdnn", {"pooling": "mean"}, "statistics"),
        ("resnet", {"depth": 50}, "18, 34"),
        ("resnet", {"width": 0}, "0 does not lie in"),
        ("campplus", {"growth": 0}, "0 does not lie in"),
        ("next_tdnn", {"kernels": [8]}, "must be odd"),
        ("next_tdnn", {"channels": 9}, "9 channels do not divide into 2 groups"),
        ("next_tdnn", {"light": True}, "there is one kernel"),
        ("redimnet", {}, "stage 1 gets 80 bands of 80 mels.*B0 needs 60"),
        ("redimnet", {"depth": [1]}, "equally long"),
        ("redimnet", {"channels": 5, "group_width": 2}, "5 channels do not divide into groups of 2"),
    ],
)
def test_unknown_networks_and_options_are_refused(name, options, message):
    with pytest.raises(InputError, match=message):
        models.build(name, options, 80)
