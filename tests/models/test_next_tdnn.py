"""NeXt-TDNN's layers against plain formulas."""

import torch

from wespeaker_lite import models
from wespeaker_lite.models.next_tdnn import MultiScale, ResponseNorm


def test_global_response_norm_equals_the_formula():
    torch.manual_seed(0)
    layer = ResponseNorm(5).double()
    torch.nn.init.normal_(layer.gain)
    torch.nn.init.normal_(layer.bias)
    maps = torch.randn(2, 5, 7, dtype=torch.float64)
    for found, x in zip(layer(maps, None), maps, strict=True):
        lengths = [sum(v * v for v in row.tolist()) ** 0.5 for row in x]
        for channel, row in enumerate(x):
            response = lengths[channel] / (sum(lengths) / 5 + 1e-6)
            expected = row + layer.gain[channel] * row * response + layer.bias[channel]
            torch.testing.assert_close(found[channel], expected)


def test_each_group_of_channels_is_convolved_by_its_own_kernel():
    torch.manual_seed(0)
    layer = MultiScale(4, (3, 5)).double()
    maps = torch.randn(1, 4, 9, dtype=torch.float64)
    before = layer.before(maps)[0]
    convolved = torch.zeros(4, 9, dtype=torch.float64)
    for channel, (size, group, row) in enumerate([(3, 0, 0), (3, 0, 1), (5, 1, 0), (5, 1, 1)]):
        conv = layer.conv.convs[group]
        for t in range(9):
            convolved[channel, t] = conv.bias[row]
            for k in range(size):
                place = t + k - size // 2
                if 0 <= place < 9:
                    convolved[channel, t] += conv.weight[row, 0, k] * before[channel, place]
    expected = layer.after(torch.nn.functional.gelu(convolved)[None])
    torch.testing.assert_close(layer(maps, None), expected)


def test_the_light_version_has_no_pointwise_layers_around_its_convolution():
    plain, light = (
        models.build("next_tdnn", {"channels": 8, "kernels": [5], "depth": [1], "light": light}, 10)
        for light in (False, True)
    )
    count = [sum(p.numel() for p in network.parameters()) for network in (plain, light)]
    assert count[0] - count[1] == 2 * (8 * 8 + 8)
