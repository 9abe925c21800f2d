"""BC-CMT against plain layers in float64, blocks against loops, sizes and costs against METHODS' counts."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.models.plain_bc_cmt import PlainNetwork
from wespeaker_lite import models
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.deploy.cost import count_macs, count_parameters
from wespeaker_lite.models.bc_cmt import Config, FeedForward, FrequencyPooling, MapAttention, Model, TimeAttention
from wespeaker_lite.models.broadcasting import BroadcastResidual, FreqResidual, PointwiseNorm, shifted_products

SIZES = {
    "tiny": {},
    "small": {"channels": [24, 48, 96, 96], "depth": [2, 2, 4, 2]},
    "base": {"channels": [32, 64, 128, 128], "depth": [2, 2, 6, 2]},
    "tiny_2d": {"attention": "2d", "groups": 8},
}
LITTLE = Config(channels=(8, 16), depth=(1, 1), strides=(1, 2), reduction=(2, 1), embed_dim=12, pool_bottleneck=6)


def perturb(module: nn.Module) -> nn.Module:
    """Change every weight and running statistic from its initial value, so that each has an effect."""
    draw = torch.Generator().manual_seed(1)
    for name, tensor in module.state_dict().items():
        if name.endswith("running_var"):
            tensor.mul_(1 + torch.rand(tensor.shape, generator=draw, dtype=tensor.dtype))
        elif tensor.is_floating_point():
            tensor.add_(0.2 * torch.randn(tensor.shape, generator=draw, dtype=tensor.dtype))
    return module


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def moved(maps: Tensor) -> Tensor:
    """(B, C, F, T) in the layout of the fast layers, (F, B, T, C)."""
    return maps.permute(2, 0, 3, 1).contiguous()


# --- Sizes and costs ---


@pytest.mark.parametrize(
    ("size", "parameters"), [("tiny", 271_440), ("small", 666_032), ("base", 1_349_008), ("tiny_2d", 261_648)]
)
def test_sizes(size: str, parameters: int) -> None:
    assert count_parameters(models.build("bc_cmt", SIZES[size], 80)) == parameters


@pytest.mark.parametrize("size", ["tiny", "tiny_2d"])
@pytest.mark.parametrize("frames", [100, 1000])
def test_macs_equal_those_of_plain_layers_by_torchs_counter(size: str, frames: int) -> None:
    model = models.build("bc_cmt", SIZES[size], 80)
    plain = PlainNetwork(Config(**SIZES[size])).eval()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        plain(torch.zeros(1, frames, 80))
    expected = {("tiny", 100): 74_011_136, ("tiny_2d", 100): 117_445_376}
    macs = count_macs(model, 80, frames)
    assert macs == counter.get_total_flops() // 2
    assert macs == expected.get((size, frames), macs)


def test_attention_over_time_needs_a_third_fewer_macs() -> None:
    ours, conventional = (count_macs(models.build("bc_cmt", SIZES[size], 80), 80) for size in ("tiny", "tiny_2d"))
    assert 1 - ours / conventional >= 0.365


# --- Against plain layers ---


def pair(attention: str, **options: object) -> tuple[Model, PlainNetwork]:
    config = Config(**{**vars(LITTLE), "attention": attention, **options})
    fast = perturb(Model(config, 40).double())
    return fast, PlainNetwork(config).double().load(fast)


def close(ours: Tensor, theirs: Tensor, name: str = "") -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-8, msg=lambda text: f"{name}: {text}")


@pytest.mark.parametrize(
    ("attention", "options"),
    # a shrunk map of one row over frequency is one whose norm torch differentiates wrongly in some layouts
    [("1d", {}), ("2d", {}), ("2d", {"reduction": (12, 6)}), ("2d", {"groups": 2})],
)
def test_training_gives_the_embeddings_and_gradients_of_plain_layers(attention: str, options: dict) -> None:
    fast, plain = pair(attention, **options)
    inputs = [noise(3, 30, 40).requires_grad_() for _ in range(2)]
    outputs = [network(each) for network, each in zip((fast, plain), inputs, strict=True)]
    close(*outputs)
    for output in outputs:
        (output * noise(3, 12, seed=1)).sum().backward()
    close(inputs[0].grad, inputs[1].grad)
    for parameter in fast.parameters():
        parameter.data.copy_(parameter.grad)
    gradients = PlainNetwork(plain.config).double().load(fast)  # carried over as the weights would be
    for (name, mine), theirs in zip(plain.named_parameters(), gradients.parameters(), strict=True):
        close(theirs.data, mine.grad, name)


@pytest.mark.parametrize("attention", ["1d", "2d"])
def test_running_statistics_and_evaluation_equal_those_of_plain_layers(attention: str) -> None:
    fast, plain = pair(attention)
    feats = noise(3, 30, 40)
    for network in (fast, plain):
        for seed in (1, 2):
            network(noise(3, 30, 40, seed=seed))
    carried = PlainNetwork(plain.config).double().load(fast)
    for (name, mine), theirs in zip(plain.named_buffers(), carried.buffers(), strict=True):
        if not name.endswith("tracked"):
            close(theirs, mine, name)
    fast.eval(), plain.eval()
    expected = plain(feats)
    close(fast(feats), expected)  # with gradients
    with torch.no_grad():
        close(fast(feats), expected)  # with folded weights


def test_folded_weights_follow_changes_of_the_weights() -> None:
    fast, plain = pair("1d")
    fast.eval(), plain.eval()
    feats = noise(2, 30, 40)
    with torch.no_grad():
        before = fast(feats)
        fast.stages[0][0].local.freq.norm.running_var.mul_(3.0)
        assert (fast(feats) - before).abs().max() > 1e-3
        close(fast(feats), plain.load(fast)(feats))
        other = perturb(Model(LITTLE, 40).double()).state_dict()
        fast.load_state_dict(other)
        close(fast(feats), plain.load(fast)(feats))
        fast.train()(noise(4, 30, 40)), fast.eval()
        close(fast(feats), plain.load(fast)(feats))
        fast.embedding.weight = nn.Parameter(fast.embedding.weight * 2)
        close(fast(feats), plain.load(fast)(feats))
        fast.stages[0][0].feed_forward.narrow.weight.data = noise(8, 24, seed=5)
        close(fast(feats), plain.load(fast)(feats))
        donor = perturb(Model(LITTLE, 40).double()).eval()
        donor(feats)
        fast.stages[0][0] = donor.stages[0][0]
        fast.stages[0][0].local.freq.norm.bias.add_(1.0)
        close(fast(feats), plain.load(fast)(feats))
        half = fast.float()(feats.float())
        torch.testing.assert_close(half.double(), plain(feats), rtol=1e-3, atol=1e-4)


# --- Layers against loops ---


def test_shifted_products_equal_a_zero_padded_convolution() -> None:
    maps, taps, start = noise(4, 2, 5, 3), noise(3, 3, seed=1), noise(3, seed=2)
    for axis in (0, 2):
        expected = torch.zeros_like(maps) + start
        for place in range(maps.shape[axis]):
            for tap in range(3):
                if 0 <= place + tap - 1 < maps.shape[axis]:
                    expected.select(axis, place).add_(taps[tap] * maps.select(axis, place + tap - 1))
        close(shifted_products(maps, taps, axis, start), expected)
    by_bin = noise(3, 4, 1, 1, 3, seed=3)
    expected = torch.stack([shifted_products(maps, by_bin[:, f, 0, 0], 0)[f] for f in range(4)])
    close(shifted_products(maps, (by_bin[0, 1:], by_bin[1], by_bin[2, :-1]), 0), expected)
    one = maps[:1]
    close(shifted_products(one, taps, 0), one * taps[1])


def test_broadcasted_residual_and_sub_spectral_norm_against_a_loop() -> None:
    layer = perturb(BroadcastResidual(3, 10, 5).double())
    maps = noise(10, 2, 6, 3)
    inner = shifted_products(maps, layer.freq.taps, 0)
    for band in range(5):
        for channel in range(3):
            values = inner[2 * band : 2 * band + 2, :, :, channel]
            mean = sum(values.flatten().tolist()) / values.numel()
            variance = sum((value - mean) ** 2 for value in values.flatten().tolist()) / values.numel()
            gain, bias = layer.freq.norm.weight[band, channel], layer.freq.norm.bias[band, channel]
            inner[2 * band : 2 * band + 2, :, :, channel] = (values - mean) / math.sqrt(variance + 1e-5) * gain + bias
    shared = shifted_products(inner.mean(0), layer.time.taps, 1)
    rows = shared.flatten(0, 1)
    shared = (rows - rows.mean(0)) / (rows.var(0, correction=0) + 1e-5).sqrt() * layer.time.norm.weight
    shared = (shared + layer.time.norm.bias).view(2, 6, 3)
    close(layer(maps), maps + inner + shared * torch.sigmoid(shared))


def test_a_widening_convolution_computes_the_statistics_of_its_output() -> None:
    layer = perturb(PointwiseNorm(4, 7).double())
    maps = noise(5, 2, 3, 4) + 2.0  # far from the mean that a covariance would like
    product = (maps @ layer.weight.T).flatten(0, 2)
    normed = (product - product.mean(0)) / (product.var(0, correction=0) + 1e-5).sqrt()
    close(layer(maps), (normed * layer.norm.weight + layer.norm.bias).view(5, 2, 3, 7))


def test_attention_over_time_head_by_head_and_row_by_row() -> None:
    layer = perturb(TimeAttention(8, 10, LITTLE).double())
    maps = noise(10, 2, 6, 8)
    normed = (maps - maps.mean((0, 1, 2))) / (maps.var((0, 1, 2), correction=0) + 1e-5).sqrt()
    inner = FreqResidual(8, 10, 5).double()
    inner.load_state_dict(layer.freq.state_dict())
    normed = normed * layer.norm.weight + layer.norm.bias
    filtered, mean = inner(normed)
    residual = maps + filtered - normed
    query, key, value = (linear(mean) for linear in (layer.query, layer.key, layer.value))
    attended = torch.zeros_like(mean)
    for utterance in range(2):
        for head in range(4):
            part = slice(2 * head, 2 * head + 2)
            for row in range(6):
                scores = [(query[utterance, row, part] @ key[utterance, k, part]) / math.sqrt(2) for k in range(6)]
                weights = torch.stack(scores).exp()
                weights = weights / weights.sum()
                attended[utterance, row, part] = sum(w * value[utterance, k, part] for k, w in enumerate(weights))
    out, shown = layer(maps, None)
    close(out, residual + layer.out(attended))
    close(shown.query[1, 2], query[1, :, 4:6])


def test_attention_over_maps_row_by_row() -> None:
    layer = perturb(MapAttention(8, 2, Config(groups=4)).double()).eval()
    maps = noise(4, 1, 6, 8)
    normed = layer.norm(maps.flatten(0, 2)).view(maps.shape)
    shrunk = torch.zeros(2, 3, 8, dtype=torch.float64)
    for f in range(2):
        for t in range(3):
            patch = normed[2 * f : 2 * f + 2, 0, 2 * t : 2 * t + 2]  # (2, 2, C)
            shrunk[f, t] = (patch * layer.shrink.weight[:, 0].permute(1, 2, 0)).sum((0, 1)) + layer.shrink.bias
    shrunk = layer.shrink_norm(shrunk.flatten(0, 1))
    keys, values, queries = layer.key(shrunk), layer.value(shrunk), layer.query(normed)
    expected = torch.zeros_like(maps)
    for f in range(4):
        for t in range(6):
            attended = torch.zeros(8, dtype=torch.float64)
            for head in range(4):
                part = slice(2 * head, 2 * head + 2)
                weights = torch.softmax(keys[:, part] @ queries[f, 0, t, part] / math.sqrt(2), 0)
                attended[part] = sum(w * value for w, value in zip(weights, values[:, part], strict=True))
            expected[f, 0, t] = maps[f, 0, t] + layer.out(attended)
    close(layer(maps, None)[0], expected)


def test_a_loss_on_maps_only_reaches_the_weights() -> None:
    fast, plain = pair("1d")
    maps = fast.activations(noise(2, 30, 40)).maps
    sum(each.square().mean() for each in maps).backward()
    below = plain.stem(noise(2, 30, 40).transpose(1, 2).unsqueeze(1))
    expected = 0.0
    for stage in plain.stages:
        below = stage(below)
        expected = expected + below.square().mean()
    expected.backward()
    close(fast.stem.conv1.weight.grad, plain.stem[0].weight.grad)


def test_a_module_in_evaluation_mode_still_gets_gradients() -> None:
    fast, _ = pair("1d")
    with torch.no_grad():
        fast.eval()(noise(2, 30, 40))
    fast.train()
    fast.stages[0].eval()
    before = {name: value.clone() for name, value in fast.stages[0].named_buffers()}
    fast(noise(2, 30, 40)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in fast.stages[0].parameters())
    assert all(torch.equal(value, before[name]) for name, value in fast.stages[0].named_buffers())


def test_a_network_made_in_inference_mode_runs() -> None:
    with torch.inference_mode():
        model = Model(LITTLE, 40).eval()
        assert model(torch.randn(1, 20, 40)).shape == (1, 12)


def test_grouped_products_see_their_group_only() -> None:
    layer = perturb(TimeAttention(8, 10, LITTLE).double()).query
    rows = noise(3, 8)
    for group in range(4):
        part = slice(2 * group, 2 * group + 2)
        close(layer(rows)[:, part], rows[:, part] @ layer.weight[group] + layer.bias[group])


def test_a_feed_forward_network_equals_its_layers() -> None:
    layer = perturb(FeedForward(4, 5, LITTLE).double())
    maps = noise(5, 2, 6, 4)
    wide = layer.residual(torch.nn.functional.gelu(layer.widen(maps)))
    narrowed = wide @ layer.narrow.weight.T
    mean, variance = narrowed.mean((0, 1, 2)), narrowed.var((0, 1, 2), correction=0)
    expected = (narrowed - mean) / (variance + 1e-5).sqrt() * layer.norm.weight + layer.norm.bias
    close(layer(maps, None), maps + expected)


def test_frequency_pooling_has_a_weight_for_each_bin_and_channel() -> None:
    layer = perturb(FrequencyPooling(3).double())
    maps = noise(5, 2, 4, 3)
    scores = layer.score(maps)
    pooled = layer(maps)
    for b, t, c in [(0, 0, 0), (1, 3, 2), (1, 1, 1)]:
        weights = torch.softmax(scores[:, b, t, c], 0).tolist()
        values = maps[:, b, t, c].tolist()
        mean = sum(w * v for w, v in zip(weights, values, strict=True))
        variance = sum(w * (v - mean) ** 2 for w, v in zip(weights, values, strict=True))
        assert pooled[b, c, t].item() == pytest.approx(mean)
        assert pooled[b, 3 + c, t].item() == pytest.approx(math.sqrt(variance))


# --- What a config may say ---


@pytest.mark.parametrize(
    ("num_mels", "options"),
    [
        (80, {}),
        (64, {"bands": 4}),
        (40, {"strides": [1, 2, 2, 1]}),
        (80, {"channels": [8, 24], "depth": [1, 3], "strides": [2, 2], "heads": 2, "groups": 8, "ffn_ratio": 2}),
        (80, {"stem_stride": [2, 1]}),
    ],
)
def test_other_sizes(num_mels: int, options: dict) -> None:
    model = models.build("bc_cmt", options, num_mels)
    assert model(torch.randn(2, 21, num_mels)).shape == (2, 256)


@pytest.mark.parametrize(
    ("num_mels", "options", "message"),
    [
        (64, {}, "stage 1 gets 32 frequency bins of 64 mels; stride 1 and then 5 bands"),
        (40, {}, "stage 4 gets 5 frequency bins of 40 mels; stride 2"),
        (80, {"heads": 3}, "16 channels do not divide into 3 heads"),
        (80, {"groups": 32}, "16 channels do not divide into 4 heads and 32 groups"),
        (80, {"channels": [16, 32]}, "equally long"),
        (80, {"attention": "2d", "reduction": [2]}, "reduction names each stage"),
        (80, {"ffn_ratio": 0}, r"ffn_ratio: 0 does not lie in \[1, 1000\]"),
        (80, {"depth": [2, 2, 0, 2]}, "depth: 0 does not lie"),
    ],
)
def test_sizes_that_do_not_divide_are_errors(num_mels: int, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        models.build("bc_cmt", options, num_mels)


@pytest.mark.parametrize("seconds", [1, 2, 10])
def test_attention_is_returned_on_request_for_any_length(seconds: int) -> None:
    model = models.build("bc_cmt", {}, 80).eval()
    feats = torch.randn(1, 100 * seconds, 80)
    with torch.no_grad():
        shown = model.activations(feats)
        torch.testing.assert_close(shown.embedding, model(feats))
    assert [len(stage) for stage in shown.attention] == [2, 2, 2, 2]
    maps = shown.attention[3][1].scores().softmax(-1)
    assert maps.shape == (1, 4, 50 * seconds, 50 * seconds)
    torch.testing.assert_close(maps.sum(-1), torch.ones(1, 4, 50 * seconds))
    assert [tuple(m.shape[1:3]) for m in shown.maps] == [(16, 40), (32, 20), (64, 10), (64, 5)]


@pytest.mark.parametrize("attention", ["1d", "2d"])
def test_the_returned_attention_is_the_attention_used(attention: str) -> None:
    model = perturb(Model(replace(LITTLE, depth=(2, 1), attention=attention), 40).double()).eval()
    used: list[tuple] = []
    for stage in model.stages:
        for block in stage:
            block.attention.out.register_forward_pre_hook(lambda _, inputs: used.append(inputs))
    with torch.no_grad():
        shown = [block for stage in model.activations(noise(2, 30, 40)).attention for block in stage]
    for block, (attended,) in zip(shown, used, strict=True):
        expected = block.scores().softmax(-1) @ block.value
        close(attended, expected.transpose(1, 2).flatten(2))


def test_any_number_of_stages() -> None:
    five = Config(channels=(8,) * 5, depth=(1,) * 5, strides=(1,) * 5, reduction=(), bands=5)
    assert Model(five, 40).eval()(torch.randn(1, 20, 40)).shape == (1, 256)
    assert Model(replace(five, attention="2d", reduction=(2,) * 5), 40).eval()(torch.randn(1, 20, 40)).shape == (1, 256)


@pytest.mark.parametrize("frames", [1, 3, 16, 33])
def test_the_conventional_attention_accepts_input_shorter_than_its_patches(frames: int) -> None:
    layer = MapAttention(8, 8, Config(channels=(8,), depth=(1,), strides=(1,), reduction=(8,))).eval()
    out, _ = layer(torch.randn(10, 2, frames, 8), None)
    assert out.shape == (10, 2, frames, 8)
    assert out.isfinite().all()


# --- Sharper attention ---


@pytest.mark.parametrize("scores", ["scaled", "cosine"])
@pytest.mark.parametrize("attention", ["1d", "2d"])
def test_scores_are_scaled_by_head_before_the_softmax(scores: str, attention: str) -> None:
    """The returned attention and the output of the layer, against explicit products and a softmax."""
    config = replace(LITTLE, attention=attention, scores=scores, groups=4, heads=4)
    layer = (TimeAttention(8, 10, config) if attention == "1d" else MapAttention(8, 1, config)).double()
    plain = replace(config, scores="plain")
    twin = (TimeAttention(8, 10, plain) if attention == "1d" else MapAttention(8, 1, plain)).double()
    perturb(layer).eval()
    state = layer.state_dict()
    scale = state.pop("sharpening.log_scale").exp()
    twin.load_state_dict(state)
    maps = noise(10, 2, 6, 8)
    with torch.no_grad():
        found, shown = layer(maps.clone(), None)
        _, before = twin.eval()(maps.clone(), None)
        query, key = before.query, before.key
        if scores == "cosine":
            query, key = (part / part.square().sum(-1, keepdim=True).sqrt() for part in (query, key))
        expected = scale * (query @ key.mT) / (1 if scores == "cosine" else 2**0.5)  # heads of width 2
        torch.testing.assert_close(shown.scores(), expected)
        attended = (expected.softmax(-1) @ before.value).transpose(1, 2).flatten(2)
        out = layer.out(attended)
        if attention == "1d":
            torch.testing.assert_close(found, layer.freq(maps)[0] + out)
        else:
            torch.testing.assert_close(found, maps + out.unflatten(1, (10, 6)).transpose(0, 1))


def test_sharper_attention_adds_one_parameter_per_head_and_block() -> None:
    for scores in ("scaled", "cosine"):
        model = models.build("bc_cmt", {"scores": scores}, 80)
        assert count_parameters(model) == 271_440 + 4 * 8
