import math

import pytest
import torch

from wespeaker_lite.models.masking import time_mask
from wespeaker_lite.models.pooling import AttentiveStatisticsPooling, StatisticsPooling, build_pooling, statistics

LENGTHS = [9, 1, 4, 2]


@pytest.fixture
def maps() -> torch.Tensor:
    return torch.randn(len(LENGTHS), 6, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3 + 1


def _naive_statistics(row: list[float], weights: list[float]) -> tuple[float, float]:
    mean = math.fsum(w * x for w, x in zip(weights, row, strict=True))
    return mean, max(math.sqrt(math.fsum(w * (x - mean) ** 2 for w, x in zip(weights, row, strict=True))), 3e-4)


def _naive_pooling(maps: torch.Tensor, weights_of) -> torch.Tensor:
    """The pooled row by row, each cut to its length; `weights_of(utterance (D, T)) -> (D, T)`."""
    pooled = []
    for utterance, length in zip(maps, LENGTHS, strict=True):
        cut = utterance[:, :length]
        pairs = [_naive_statistics(x, w) for x, w in zip(cut.tolist(), weights_of(cut).tolist(), strict=True)]
        pooled.append([mean for mean, _ in pairs] + [deviation for _, deviation in pairs])
    return torch.tensor(pooled, dtype=torch.float64)


def _even(cut: torch.Tensor) -> torch.Tensor:
    return torch.full_like(cut, 1 / cut.shape[-1])


def test_statistics_pooling_equals_loops(maps):
    pooled = StatisticsPooling(6)(maps, time_mask(torch.tensor(LENGTHS), 9))
    torch.testing.assert_close(pooled, _naive_pooling(maps, _even))


def test_two_dimensional_maps_are_pooled_channel_by_channel_and_band_by_band(maps):
    mask = time_mask(torch.tensor(LENGTHS), 9)
    for pooling in (StatisticsPooling(6), AttentiveStatisticsPooling(6, bottleneck=5).double()):
        torch.testing.assert_close(pooling(maps.unflatten(1, (2, 3)), mask), pooling(maps, mask))


def test_unbiased_statistics_equal_those_of_torch(maps):
    mean, deviation = statistics(maps, unbiased=True)
    torch.testing.assert_close(mean, maps.mean(-1, keepdim=True))
    torch.testing.assert_close(deviation, maps.std(-1, keepdim=True))
    _, masked = statistics(maps, time_mask(torch.tensor(LENGTHS), 9), unbiased=True)
    torch.testing.assert_close(masked[2], maps[2, :, :4].std(-1, keepdim=True))
    assert masked.isfinite().all()


@pytest.mark.parametrize("global_context", [False, True])
def test_attentive_pooling_equals_loops_over_the_formula(maps, global_context):
    torch.manual_seed(1)
    pooling = AttentiveStatisticsPooling(6, bottleneck=5, global_context=global_context).double()

    def weights_of(cut: torch.Tensor) -> torch.Tensor:
        columns = []
        pairs = [_naive_statistics(x, w) for x, w in zip(cut.tolist(), _even(cut).tolist(), strict=True)]
        context = torch.tensor([m for m, _ in pairs] + [s for _, s in pairs], dtype=torch.float64)
        for frame in cut.T:
            seen = torch.cat((frame, context)) if global_context else frame
            hidden = torch.tanh(pooling.hidden.weight[..., 0] @ seen + pooling.hidden.bias)
            columns.append(pooling.score.weight[..., 0] @ hidden + pooling.score.bias)
        return torch.softmax(torch.stack(columns, dim=1), dim=1)

    with torch.no_grad():
        pooled = pooling(maps, time_mask(torch.tensor(LENGTHS), 9))
        torch.testing.assert_close(pooled, _naive_pooling(maps, weights_of))
        torch.testing.assert_close(pooling(maps[:1]), pooled[:1])


@pytest.mark.parametrize(("name", "global_context"), [("statistics", False), ("attentive", False), ("attentive", True)])
@pytest.mark.parametrize("masked", [False, True])
def test_gradients_equal_finite_differences(maps, name, global_context, masked):
    torch.manual_seed(2)
    pooling = build_pooling(name, 6, 5, global_context).double()
    mask = time_mask(torch.tensor(LENGTHS), 9) if masked else None
    assert torch.autograd.gradcheck(lambda x: pooling(x, mask), maps.requires_grad_())


@pytest.mark.parametrize("name", ["statistics", "attentive"])
def test_a_small_standard_deviation_is_exact_with_a_large_offset(name):
    """A mean of squares would lose all digits: 1000 squared is rounded by 0.06, and the variance is 0.01."""
    pooling = build_pooling(name, 4, 3, True)
    maps = 0.1 * torch.randn(2, 4, 500, generator=torch.Generator().manual_seed(0))
    for parameter in pooling.parameters():
        torch.nn.init.zeros_(parameter)  # attention to all frames alike
    with torch.no_grad():
        deviation = pooling(maps + 1000)[:, 4:]
    torch.testing.assert_close(deviation.double(), (maps + 1000).double().std(-1, correction=0), rtol=1e-3, atol=0)


@pytest.mark.parametrize("name", ["statistics", "attentive"])
def test_constant_maps_have_finite_gradients(name):
    pooling = build_pooling(name, 4, 3, True)
    maps = torch.ones(2, 4, 7, requires_grad=True)
    pooling(maps).sum().backward()
    assert maps.grad.isfinite().all()


@pytest.mark.parametrize("name", ["statistics", "attentive"])
def test_pooling_is_float32_under_autocast(name):
    pooling = build_pooling(name, 4, 3, True)
    maps = torch.randn(2, 4, 300, generator=torch.Generator().manual_seed(0)) + 50
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        pooled = pooling(maps.bfloat16())
    assert pooled.dtype == torch.float32
    deviation = maps.bfloat16().double().std(-1, correction=0)
    torch.testing.assert_close(pooled[:, 4:].double(), deviation, rtol=0.1 if name == "attentive" else 1e-4, atol=0)


def test_an_unknown_pooling_is_refused():
    with pytest.raises(ValueError, match="mean"):
        build_pooling("mean", 4, 3, True)
