import torch
from torch import nn

from wespeaker_lite.models.ecapa_tdnn import Config, Model, Res2Conv, SERes2Block


def _conv_relu_norm(layer: nn.Sequential, group: torch.Tensor) -> torch.Tensor:
    """Frame by frame: the weighted neighbours, ReLU, then the norm of evaluation."""
    conv, norm = layer[0], layer[2]
    (dilation,), (size,) = conv.dilation, conv.kernel_size
    out = torch.zeros_like(group)
    for t in range(group.shape[1]):
        out[:, t] = conv.bias
        for tap in range(size):
            source = t + dilation * (tap - size // 2)
            if 0 <= source < group.shape[1]:
                out[:, t] += conv.weight[:, :, tap] @ group[:, source]
    normed = (out.clamp(min=0) - norm.running_mean[:, None]) / (norm.running_var[:, None] + norm.eps).sqrt()
    return normed * norm.weight[:, None] + norm.bias[:, None]


def test_res2_groups_feed_each_other_as_in_the_formula():
    torch.manual_seed(0)
    layer = Res2Conv(channels=12, scale=4, dilation=3).double().eval()
    maps = torch.randn(1, 12, 11, dtype=torch.float64)
    with torch.no_grad():
        groups = maps[0].split(3)
        outputs = [groups[0], _conv_relu_norm(layer.convs[0], groups[1])]
        for conv, group in zip(layer.convs[1:], groups[2:], strict=True):
            outputs.append(_conv_relu_norm(conv, group + outputs[-1]))
        torch.testing.assert_close(layer(maps, None)[0], torch.cat(outputs))


def test_a_block_adds_its_gated_inner_maps_to_its_input():
    torch.manual_seed(0)
    block = SERes2Block(Config(channels=16, se_bottleneck=4), dilation=2).double().eval()
    maps = torch.randn(2, 16, 9, dtype=torch.float64)
    with torch.no_grad():
        inner = block.merge(block.res2(block.expand(maps), None))
        squeeze, _, excite, _ = block.gate
        hidden = (inner.mean(-1) @ squeeze.weight[..., 0].T + squeeze.bias).clamp(min=0)
        gate = 1 / (1 + (-(hidden @ excite.weight[..., 0].T + excite.bias)).exp())
        torch.testing.assert_close(block(maps, None), maps + inner * gate[:, :, None])


def test_the_input_of_each_block_is_the_sum_of_all_previous_outputs():
    torch.manual_seed(0)
    model = Model(Config(channels=16, mfa_channels=24, embed_dim=8), num_mels=20).double().eval()
    inputs: list[torch.Tensor] = []
    for block in model.blocks:
        block.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    feats = torch.randn(2, 30, 20, dtype=torch.float64)
    with torch.no_grad():
        stem = model.stem(feats.transpose(1, 2))
        outputs = model.activations(feats).maps
    torch.testing.assert_close(inputs, [stem, stem + outputs[0], stem + outputs[0] + outputs[1]])
