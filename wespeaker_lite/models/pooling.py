"""Pooling over time: from maps of any length to the mean and standard deviation of their channels.

All statistics are computed in float32 or float64, also under autocast: bfloat16 is too coarse for a variance.
"""

import torch
from torch import Tensor, nn

from wespeaker_lite.models.masking import apply_mask, expand_mask, full_precision, mean_over_time

# A standard deviation below this is a rounding error. The floor also bounds the gradient.
DEVIATION_FLOOR = 3e-4


def statistics(maps: Tensor, mask: Tensor | None = None, unbiased: bool = False) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the valid frames: maps (B, D, T), mask (B, T) -> two of (B, D, 1).

    `unbiased` divides the sum of squares by max(frames - 1, 1), for networks trained that way.
    """
    mean, centred = _centre(full_precision(maps), mask)
    return mean, _std(centred, mask, unbiased)


def _centre(maps: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The mean over the valid frames, and the maps minus the mean.

    The subtracted mean is detached: the gradient of the centred squares towards it is zero, so no backward is needed.
    """
    mean = mean_over_time(maps, mask)
    return mean, maps - mean.detach()


def _std(centred: Tensor, mask: Tensor | None, unbiased: bool = False) -> Tensor:
    norm = torch.linalg.vector_norm(apply_mask(centred, mask), dim=-1, keepdim=True)
    return (norm / _count(centred, mask, unbiased) ** 0.5).clamp(min=DEVIATION_FLOOR)


def _count(maps: Tensor, mask: Tensor | None, unbiased: bool) -> Tensor | int:
    if mask is None:
        frames = maps.shape[-1]
        return max(frames - 1, 1) if unbiased else frames
    valid = expand_mask(mask, 3).sum(dim=-1, keepdim=True)
    return (valid - 1).clamp(min=1) if unbiased else valid


class StatisticsPooling(nn.Module):
    """Mean and standard deviation over time (TSTP): (B, D, T) or (B, C, F, T) with D = C*F -> (B, 2D).

    Source: Snyder et al., ICASSP 2018 (x-vectors), section 2.1; `unbiased` as in `statistics`.
    """

    def __init__(self, dim: int, unbiased: bool = False) -> None:
        super().__init__()
        self.out_dim = 2 * dim
        self.unbiased = unbiased

    def forward(self, maps: Tensor, mask: Tensor | None = None) -> Tensor:
        mean, std = statistics(_flatten(maps), mask, self.unbiased)
        return torch.cat((mean, std), dim=1).squeeze(-1)


class AttentiveStatisticsPooling(nn.Module):
    """Attentive statistics, a weight for each channel and frame: (B, D, T) or (B, C, F, T), D = C*F -> (B, 2D).

    With `global_context`, the attention also gets the mean and standard deviation over all frames (`unbiased` as in
    `statistics`).
    Source: Desplanques et al., Interspeech 2020 (ECAPA-TDNN), section 3.1; Okabe et al., Interspeech 2018.
    """

    def __init__(self, dim: int, bottleneck: int = 128, global_context: bool = True, unbiased: bool = False) -> None:
        super().__init__()
        self.out_dim = 2 * dim
        self.unbiased = unbiased
        self.global_context = global_context
        self.hidden = nn.Conv1d(3 * dim if global_context else dim, bottleneck, kernel_size=1)
        self.score = nn.Conv1d(bottleneck, dim, kernel_size=1)

    def forward(self, maps: Tensor, mask: Tensor | None = None) -> Tensor:
        maps = apply_mask(_flatten(maps), mask)
        average, centred = _centre(full_precision(maps), mask)
        scores = full_precision(self.score(torch.tanh(self._hidden(maps, average, centred, mask))))
        if mask is not None:
            scores = scores.masked_fill(expand_mask(mask, 3).logical_not(), -torch.inf)
        # Moments around the unweighted mean give the same result without the cancellation of large squares.
        weighted = torch.softmax(scores, dim=-1) * centred
        offset = weighted.sum(dim=-1, keepdim=True)
        variance = (weighted * centred).sum(dim=-1, keepdim=True) - offset.square()
        std = variance.clamp(min=DEVIATION_FLOOR**2).sqrt()
        return torch.cat((average.detach() + offset, std), dim=1).squeeze(-1)

    def _hidden(self, maps: Tensor, average: Tensor, centred: Tensor, mask: Tensor | None) -> Tensor:
        if not self.global_context:
            return self.hidden(maps)
        # Mean and standard deviation are the same in every frame, so their product is computed once per utterance.
        dim = maps.shape[1]
        context = torch.cat((average, _std(centred, mask, self.unbiased)), dim=1)
        local_weight, context_weight = self.hidden.weight[:, :dim], self.hidden.weight[:, dim:]
        shared = nn.functional.conv1d(context, context_weight, self.hidden.bias)
        return nn.functional.conv1d(maps, local_weight) + shared


def build_pooling(name: str, dim: int, bottleneck: int, global_context: bool, unbiased: bool = False) -> nn.Module:
    """Build the pooling layer `statistics` or `attentive` for maps of `dim` channels. Its `out_dim` is 2*dim."""
    if name == "statistics":
        return StatisticsPooling(dim, unbiased)
    if name == "attentive":
        return AttentiveStatisticsPooling(dim, bottleneck, global_context, unbiased)
    raise ValueError(f"no pooling is called {name!r}")


def _flatten(maps: Tensor) -> Tensor:
    return maps if maps.dim() == 3 else maps.flatten(1, 2)
