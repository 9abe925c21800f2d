"""Training with fake quantisation: the products of a student see weights and inputs rounded to 8 bits.

So the student learns to tolerate the rounding of `deploy/quantise.py`. Source: Jacob et al., CVPR 2018 (arXiv
1712.05877), section 3. Gradients pass straight through the rounding. As there, weights are symmetric with a step for
each output channel, inputs have one step and a zero point, and the first convolution and grouped ones stay in float.

Where it differs from the exported graph: the graph folds norms into the products behind them, which changes the steps
of those weights. It may round an input before something is added to it, and it also rounds outputs of products, which
changes embeddings little. In attentive pooling with global context, only weights are rounded here.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.models.bc_cmt import GroupedLinear, TimeAttention
from wespeaker_lite.models.broadcasting import PointwiseNorm
from wespeaker_lite.models.masking import full_precision

LARGEST_WEIGHT = 127  # -128 is not used, so that the range is symmetric
LARGEST_INPUT = 255
AVERAGING = 0.01  # share of the newest batch in the moving averages of ranges


class FakeQuantisation(nn.Module):
    """Rounds the products of a student while it trains, until `remove`. Its buffers are the ranges of inputs."""

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self._layers = (products_of(student),)  # a tuple hides them from nn.Module
        if not self.layers:
            raise InputError("train.quantize: this network has no products that could be rounded to 8 bits")
        self.inputs = nn.ModuleList(RoundedInput() for _ in self.layers)
        self._hooks = []
        for layer, rounding in zip(self.layers, self.inputs, strict=True):
            # All of these weights have outputs before inputs, but for GroupedLinear: (groups, inputs, outputs).
            axes = (1,) if isinstance(layer, GroupedLinear) else tuple(range(1, layer.weight.ndim))
            parametrize.register_parametrization(layer, "weight", RoundedWeight(axes))
            self._hooks.append(layer.register_forward_pre_hook(rounding.before))
        # Queries, keys and values are one product of the mean over frequency, so none of their layers is called.
        means = [layer.freq for layer in student.modules() if isinstance(layer, TimeAttention)]
        self.means = nn.ModuleList(RoundedInput() for _ in means)
        for layer, rounding in zip(means, self.means, strict=True):
            self._hooks.append(layer.register_forward_hook(rounding.of_mean))

    @property
    def layers(self) -> list[nn.Module]:
        """The layers whose products are rounded."""
        return self._layers[0]

    def remove(self) -> None:
        """Make the student a plain network again, with the weights as they are before rounding."""
        for hook in self._hooks:
            hook.remove()
        for layer in self.layers:
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)


def products_of(student: nn.Module) -> list[nn.Module]:
    """The layers that are products over channels, without groups, except the first convolution."""
    layers = [
        layer
        for layer in student.modules()
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d | GroupedLinear | PointwiseNorm)
    ]
    return [layer for layer in layers[1:] if getattr(layer, "groups", 1) == 1]


class RoundedWeight(nn.Module):
    """A weight rounded to 8 bits. `axes` are its input axes: each output has its own step."""

    def __init__(self, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, weight: Tensor) -> Tensor:
        exact = weight.detach()
        steps = exact.abs().amax(self.axes, keepdim=True).clamp(min=1e-12) / LARGEST_WEIGHT
        return weight + ((exact / steps).round() * steps - exact)


class RoundedInput(nn.Module):
    """The input of a layer rounded to 8 bits, in a range that contains 0. Beyond the range, gradients are 0.

    The range is a moving average of the smallest and largest value of each batch.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor(0.0))
        self.register_buffer("high", torch.tensor(0.0))

    def forward(self, values: Tensor) -> Tensor:
        values = full_precision(values)
        self._follow(values.detach())
        step = ((self.high - self.low) / LARGEST_INPUT).clamp(min=1e-12)
        zero = (-self.low / step).round().clamp(0, LARGEST_INPUT).to(torch.int32)
        return torch.fake_quantize_per_tensor_affine(values, step, zero, 0, LARGEST_INPUT)

    def _follow(self, values: Tensor) -> None:
        low, high = values.min().clamp(max=0), values.max().clamp(min=0)
        share = torch.where(self.high > self.low, AVERAGING, 1.0)  # the first batch counts whole
        self.low.lerp_(low, share)
        self.high.lerp_(high, share)

    def before(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """A hook that a layer calls before its forward pass."""
        return (self(inputs[0]), *inputs[1:]) if layer.training else None

    def of_mean(
        self, layer: nn.Module, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor] | None:
        """A hook that is called after a `FreqResidual`: round its second output, the mean over frequency."""
        return (outputs[0], self(outputs[1])) if layer.training else None
