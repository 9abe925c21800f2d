"""Layers of broadcasting networks, on maps (F, B, T, C): frequency outermost, channels innermost.

In this layout, a sub-band is one block of memory. A mean over frequency is a sum of blocks, a 1x1 convolution is one
matrix product, and a depthwise convolution is three products with a vector. In evaluation mode, each normalisation is
folded into the adjacent weights. tests/benchmarks/bc_cmt.py compares the time with nn.Conv2d and nn.BatchNorm2d on
(B, C, F, T).
"""

import itertools
import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from wespeaker_lite.models.masking import full_precision


class FoldedLayer(nn.Module):
    """A layer with fewer weights in evaluation mode. `fold` computes them, and `folded` caches them."""

    folded: tuple[Tensor, ...] | None = None

    def fold(self) -> tuple[Tensor, ...]:
        """Compute the weights of evaluation mode from the parameters and the running statistics."""
        raise NotImplementedError

    def constants(self) -> tuple[Tensor, ...]:
        """The weights of evaluation mode, from the cache if they are in it."""
        return self.fold() if self.folded is None else self.folded


class Folding:
    """Caches the folded weights of a network's layers until a parameter or buffer changes.

    Each pass compares the tensors and their version counters, because an outdated cache would give a wrong embedding.
    Writes that bypass the counters (`tensor.data.mul_()`) are not detected.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = (network,)  # a tuple, because the network refers to this object
        self.places: list[dict[str, Any]] = []  # the dicts in which its modules keep submodules and tensors
        self.seen: list[Any] = []
        self.versions: list[tuple[int, int]] = []

    def refresh(self) -> None:
        """Update the cached weights of all layers, before each pass, or drop them if they must not be cached."""
        # With gradients, and in an export, each pass must compute its own.
        kept = not torch.is_grad_enabled() and not torch.compiler.is_exporting()
        if kept and self._unchanged():
            return
        (network,) = self.network
        self.seen = []  # invalid, in case folding is interrupted
        places = [place for m in network.modules() for place in (m._modules, m._parameters, m._buffers)]
        seen = _contents(places)
        kept = kept and not any(tensor.is_inference() for tensor in _tensors(seen))
        for layer in network.modules():
            if isinstance(layer, FoldedLayer):
                layer.folded = layer.fold() if kept else None
        if kept:
            self.places, self.seen, self.versions = places, seen, _versions(seen)

    def _unchanged(self) -> bool:
        # This compares some 600 objects for each utterance, so it avoids Python loops.
        now = _contents(self.places)
        same = len(now) == len(self.seen) > 0 and all(map(operator.is_, now, self.seen))
        return same and _versions(now) == self.versions


def _contents(places: list[dict[str, Any]]) -> list[Any]:
    return list(itertools.chain.from_iterable(map(dict.values, places)))


def _tensors(things: list[Any]) -> list[Tensor]:
    return [thing for thing in things if isinstance(thing, Tensor)]


def _versions(things: list[Any]) -> list[tuple[int, int]]:
    return [(tensor._version, tensor.data_ptr()) for tensor in _tensors(things)]


def affine_of(norm: "nn.BatchNorm1d | SubSpectralNorm") -> tuple[Tensor, Tensor]:
    """The scale and shift to which a norm reduces with its running statistics, each of the shape of its weight."""
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    return scale, norm.bias - norm.running_mean * scale


def batch_norm(norm: nn.BatchNorm1d, maps: Tensor) -> Tensor:
    """Normalise the channels of maps (..., C). torch has a fast kernel for the flattened shape."""
    return norm(maps.reshape(-1, maps.shape[-1])).view_as(maps)


# --- Depthwise convolution ---


def taps_of(channels: int) -> nn.Parameter:
    """A weight (3, C) of a depthwise convolution with kernel 3, initialised as in nn.Conv2d."""
    return nn.Parameter(torch.empty(3, channels).uniform_(-1, 1) / math.sqrt(3))


def shifted_products(maps: Tensor, taps: Tensor | Sequence[Tensor], axis: int, start: Tensor | None = None) -> Tensor:
    """Depthwise convolution along an axis: y[i] = start + taps[0] x[i-1] + taps[1] x[i] + taps[2] x[i+1], zero outside.

    maps: (F, B, T, C) or (B, T, C). taps: (3, C), or three tensors that vary along the axis. Then the first omits the
    first position, and the last omits the last, because they would be multiplied by zero. torch's convolution kernels
    take several times as long for three taps.
    """
    before, here, after = taps
    count = maps.shape[axis] - 1
    out = maps * here if start is None else torch.addcmul(start, maps, here)
    if count > 0:
        out.narrow(axis, 1, count).addcmul_(maps.narrow(axis, 0, count), before)
        out.narrow(axis, 0, count).addcmul_(maps.narrow(axis, 1, count), after)
    return out


def _tap_gradients(maps: Tensor, grad: Tensor, axis: int) -> Tensor:
    """The gradients of the taps, (3, C): sums of `grad` times the maps, shifted by -1, 0 and 1."""
    count = maps.shape[axis] - 1
    return torch.stack(
        [
            _dots(grad.narrow(axis, 1, count), maps.narrow(axis, 0, count)),
            _dots(grad, maps),
            _dots(grad.narrow(axis, 0, count), maps.narrow(axis, 1, count)),
        ]
    )


def _dots(left: Tensor, right: Tensor) -> Tensor:
    """Sum of products over all but the last axis: two of (..., C) -> (C,)."""
    left, right = left.reshape(-1, left.shape[-1]), right.reshape(-1, right.shape[-1])
    if len(left) == 0:
        return left.new_zeros(left.shape[1])
    # The gradient of a norm's gain with mean 0 and standard deviation 1 is this sum, which torch computes in one pass.
    zeros, ones = left.new_zeros(left.shape[1]), left.new_ones(left.shape[1])
    gradients = torch.ops.aten.native_batch_norm_backward(
        left, right, None, zeros, ones, None, None, False, 0.0, [False, True, False]
    )
    return gradients[1]


class _ShiftedProducts(torch.autograd.Function):
    """`shifted_products` with gradients for maps and taps (3, C)."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, taps: Tensor, axis: int) -> Tensor:
        ctx.save_for_backward(maps, taps)
        ctx.axis = axis
        return shifted_products(maps, taps, axis)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        maps, taps = ctx.saved_tensors
        return shifted_products(grad, taps.flip(0), ctx.axis), _tap_gradients(maps, grad, ctx.axis), None


# --- Broadcasted residual learning ---


class SubSpectralNorm(nn.Module):
    """Parameters of sub-spectral normalisation: a batch norm for each of S sub-bands. `FreqResidual` computes it.

    Source: Chang et al., ICASSP 2021 (arXiv 2103.13620), section 2.
    """

    def __init__(self, channels: int, bands: int) -> None:
        super().__init__()
        self.eps, self.momentum = 1e-5, 0.1
        self.weight = nn.Parameter(torch.ones(bands, channels))
        self.bias = nn.Parameter(torch.zeros(bands, channels))
        self.register_buffer("running_mean", torch.zeros(bands, channels))
        self.register_buffer("running_var", torch.ones(bands, channels))


class _FreqResidual(torch.autograd.Function):
    """x + a and mean_F a with a = SSN(DWConv_freq(z)), with the statistics of the batch.

    Each sub-band is processed as a whole before the next one, so that it stays in the CPU cache.
    """

    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, inner: Tensor, taps: Tensor, weight: Tensor, bias: Tensor, norm: SubSpectralNorm
    ) -> tuple[Tensor, Tensor]:
        filtered, out = shifted_products(inner, taps, axis=0), torch.empty_like(maps)
        means, variances, mean = [], [], 0.0
        for band, bins in enumerate(_sub_bands(len(maps), norm)):
            band_mean, variance = torch.ops.aten.batch_norm_update_stats(
                filtered[bins].view(-1, maps.shape[-1]), norm.running_mean[band], norm.running_var[band], norm.momentum
            )
            means.append(band_mean)
            variances.append(variance)
            scale = weight[band] * (variance + norm.eps).rsqrt()
            target = torch.addcmul(bias[band] - band_mean * scale, filtered[bins], scale, out=out[bins])
            mean = mean + target.sum(0)
            target.add_(maps[bins])
        ctx.save_for_backward(inner, filtered, taps, weight, torch.stack(means), torch.stack(variances))
        ctx.norm, ctx.is_residual = norm, inner is maps
        return out, mean / len(maps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, grad_mean: Tensor) -> tuple[Tensor | None, ...]:
        inner, filtered, taps, weight, means, variances = ctx.saved_tensors
        grad = grad.contiguous()  # the gradient of a loss on maps has another layout
        inverse = (variances + ctx.norm.eps).rsqrt()
        grad_weight, grad_bias = torch.empty_like(weight), torch.empty_like(weight)
        through = torch.empty_like(filtered)
        channels, count = filtered.shape[-1], filtered.numel() // weight.numel()
        shared = grad_mean / len(filtered)
        for band, bins in enumerate(_sub_bands(len(filtered), ctx.norm)):
            gradients = grad[bins] + shared  # of a
            _, grad_weight[band], grad_bias[band] = torch.ops.aten.native_batch_norm_backward(
                gradients.view(-1, channels), filtered[bins].view(-1, channels), None, None, None, means[band],
                inverse[band], True, ctx.norm.eps, [False, True, True],
            )  # fmt: skip
            # The gradient of a norm is linear in the incoming gradient and in its input, so no normalised copy is made.
            gain = weight[band] * inverse[band]
            slope = -gain * inverse[band] * grad_weight[band] / count
            offset = -gain * grad_bias[band] / count - slope * means[band]
            torch.addcmul(offset, filtered[bins], slope, out=through[bins]).addcmul_(gradients, gain)
        grad_inner = shifted_products(through, taps.flip(0), axis=0, start=grad if ctx.is_residual else None)
        grad_taps = _tap_gradients(inner, through, axis=0)
        grads = (grad_inner, None) if ctx.is_residual else (grad, grad_inner)
        return *grads, grad_taps, grad_weight, grad_bias, None


def _sub_bands(bins: int, norm: SubSpectralNorm) -> list[slice]:
    width = bins // len(norm.weight)
    return [slice(first, first + width) for first in range(0, bins, width)]


class FreqResidual(FoldedLayer):
    """x + a and mean_F a, with a = SSN(DWConv_freq(x)): x (F, B, T, C) -> (F, B, T, C) and (B, T, C).

    entry: a batch norm of the enclosing layer. It is applied to x before the convolution.
    """

    def __init__(self, channels: int, bins: int, bands: int, entry: nn.BatchNorm1d | None = None) -> None:
        super().__init__()
        self.bins = bins
        self.taps = taps_of(channels)
        self.norm = SubSpectralNorm(channels, bands)
        self._entry = (entry,)  # a tuple, because it is a submodule of the enclosing layer

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        if self.norm.training:
            (entry,) = self._entry
            inner = maps if entry is None else batch_norm(entry, maps)
            if type(self.norm) is not SubSpectralNorm:  # synchronised across processes
                branch = self.norm(_ShiftedProducts.apply(inner, self.taps, 0))
                return maps + branch, branch.mean(0)
            return _FreqResidual.apply(maps, inner, self.taps, self.norm.weight, self.norm.bias, self.norm)
        *taps, start = self.constants()
        filtered = shifted_products(maps, taps, axis=0, start=start)
        mean = filtered.mean(0)
        return filtered.add_(maps), mean

    def fold(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        norm, taps, (entry,) = self.norm, self.taps[:, None].expand(-1, self.bins, -1), self._entry
        scale, shift = (part.repeat_interleave(self.bins // len(part), 0) for part in affine_of(norm))
        if entry is not None:
            entry_scale, entry_shift = affine_of(entry)
            # The shift of the entry gives a constant, except at the ends, where a tap is multiplied by zero.
            present = torch.ones_like(taps[..., :1])
            present[0, 0] = present[2, -1] = 0
            shift = shift + scale * entry_shift * (taps * present).sum(0)
            taps = taps * entry_scale
        before, here, after = (taps * scale)[:, :, None, None]
        return before[1:], here, after[:-1], shift[:, None, None]

    @staticmethod
    def macs(output: tuple[Tensor, Tensor]) -> int:
        """Multiply-accumulates of a call that gave `output`: no counter of matrix products sees them."""
        return 3 * output[0].numel()


class TimeBranch(FoldedLayer):
    """The branch over time: depthwise convolution, batch norm, SiLU: (B, T, C) -> the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.taps = taps_of(channels)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, mean: Tensor, mask: Tensor | None) -> Tensor:
        """`mean` (B, T, C) is over all bins. `mask` (B, T) is true for frames that are not padding."""
        if mask is not None:
            mean = mean.masked_fill(mask.logical_not()[..., None], 0.0)
        if self.norm.training:
            return F.silu(batch_norm(self.norm, _ShiftedProducts.apply(mean, self.taps, 1)))
        *taps, bias = self.constants()
        return F.silu(shifted_products(mean, taps, axis=1, start=bias), inplace=True)

    def fold(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        scale, shift = affine_of(self.norm)
        return *(self.taps * scale), shift

    @staticmethod
    def macs(output: Tensor) -> int:
        """Multiply-accumulates of a call that gave `output`: no counter of matrix products sees them."""
        return 3 * output.numel()


class BroadcastResidual(nn.Module):
    """Broadcasted residual learning: x + a + broadcast_F(f(mean_F a)), a = SSN(DWConv_freq(x)).

    Source: Kim et al., Interspeech 2021 (arXiv 2106.04140), section 2.2; f without its 1x1 convolution: reconstruction.
    """

    def __init__(self, channels: int, bins: int, bands: int) -> None:
        super().__init__()
        self.freq = FreqResidual(channels, bins, bands)
        self.time = TimeBranch(channels)

    def forward(self, maps: Tensor, mask: Tensor | None = None) -> Tensor:
        """Maps (F, B, T, C), mask (B, T) or None -> the same shape."""
        residual, mean = self.freq(maps)
        return residual.add_(self.time(mean, mask))


# --- 1x1 convolution ---


class _PointwiseNorm(torch.autograd.Function):
    """1x1 convolution and batch norm of rows (N, in). The statistics are computed from mean and covariance of rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, gain: Tensor, bias: Tensor, norm: nn.BatchNorm1d) -> Tensor:
        count = len(rows)
        mean, gram = rows.mean(0), rows.T @ rows
        means = weight @ mean
        variances = ((weight @ (gram / count - torch.outer(mean, mean))) * weight).sum(1).clamp(min=0)
        norm.running_mean.lerp_(means, norm.momentum)
        norm.running_var.lerp_(variances * (count / max(count - 1, 1)), norm.momentum)
        norm.num_batches_tracked += 1
        inverse_std = (variances + norm.eps).rsqrt()
        folded = weight * (gain * inverse_std)[:, None]
        ctx.save_for_backward(rows, weight, gain, mean, gram, means, inverse_std, folded)
        return torch.addmm(bias - folded @ mean, rows, folded.T)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, gain, mean, gram, means, inverse_std, folded = ctx.saved_tensors
        count = len(rows)
        moments, grad_bias = grad.T @ rows, grad.sum(0)
        grad_gain = inverse_std * ((moments * weight).sum(1) - means * grad_bias)
        # The gradient of a batch norm is gain times the incoming gradient, plus a multiple of the input and a constant.
        scale = gain * inverse_std
        slope = -scale * inverse_std * grad_gain / count
        offset = -scale * grad_bias / count - slope * means
        grad_weight = scale[:, None] * moments + slope[:, None] * (weight @ gram) + torch.outer(offset, mean * count)
        grad_rows = torch.addmm(offset @ weight, rows, weight.T @ (slope[:, None] * weight)).addmm_(grad, folded)
        return grad_rows, grad_weight, grad_gain, grad_bias, None


class PointwiseNorm(FoldedLayer):
    """1x1 convolution and batch norm in one product: maps (..., in) -> (..., out).

    In training, the statistics of the output are computed from mean and covariance of the input. For a widening
    convolution, this replaces several passes over the wide maps by one small product. Precision is lost only if means
    are hundreds of standard deviations from 0, which is not so in a residual network.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        self.norm = nn.BatchNorm1d(out_channels)

    def forward(self, maps: Tensor) -> Tensor:
        if not self.norm.training:
            return F.linear(maps, *self.constants())
        if type(self.norm) is not nn.BatchNorm1d:  # synchronised across processes
            return batch_norm(self.norm, F.linear(maps, self.weight))
        with torch.autocast(maps.device.type, enabled=False):  # half precision is too coarse for a covariance
            rows = full_precision(maps).reshape(-1, maps.shape[-1])
            out = _PointwiseNorm.apply(rows, self.weight, self.norm.weight, self.norm.bias, self.norm)
        return out.view(*maps.shape[:-1], -1)

    def fold(self) -> tuple[Tensor, Tensor]:
        scale, shift = affine_of(self.norm)
        return self.weight * scale[:, None], shift
