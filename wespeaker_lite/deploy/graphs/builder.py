"""Builder of ONNX graphs, node by node. Weights can have any precision."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

OPSET = 17  # supported since onnxruntime 1.12, which older clients use
_IR_VERSION = 8

Layers = tuple[nn.Module, nn.Module]  # a convolution and the norm after it


class Graph:
    """A graph. Its nodes are in the order of execution. A value is represented by its name, a string."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: dict[str, np.ndarray] = {}
        self._known: dict[tuple[Any, ...], str] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, shape: Sequence[int | str]) -> str:
        """Declare a float input. Axes with a name may have any size."""
        self._inputs.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
        return name

    def output(self, value: str, name: str, shape: Sequence[int | str]) -> None:
        """Declare `value` as the output `name`."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))

    def add(self, operator: str, *inputs: str | Tensor | np.ndarray, **attributes: Any) -> str:
        """Add a node with one output. Tensors become weights. An empty string leaves out an optional input."""
        return self.split(operator, 1, *inputs, **attributes)[0]

    def split(self, operator: str, count: int, *inputs: str | Tensor | np.ndarray, **attributes: Any) -> list[str]:
        """Add a node with `count` outputs."""
        names = [value if isinstance(value, str) else self.weight(value) for value in inputs]
        outputs = [f"{operator}_{len(self._nodes)}_{number}" for number in range(count)]
        self._nodes.append(helper.make_node(operator, names, outputs, name=outputs[0], **attributes))
        return outputs

    def weight(self, value: Tensor | np.ndarray) -> str:
        """Add a constant: int64 unchanged, other types as float32. Equal constants are stored once."""
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        array = array if array.dtype == np.int64 else array.astype(np.float32)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            self._known[key] = f"weight_{len(self._weights)}"
            self._weights[self._known[key]] = array.copy()  # contiguous, and not a view of a parameter
        return self._known[key]

    def model(self, metadata: Mapping[str, str]) -> onnx.ModelProto:
        """The model, after onnx's check."""
        weights = [numpy_helper.from_array(array, name) for name, array in self._weights.items()]
        graph = helper.make_graph(self._nodes, "wespeaker_lite", self._inputs, self._outputs, weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION)
        model.producer_name = "wespeaker_lite"
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model, full_check=True)
        return model

    # --- Layers ---

    def shape(self, value: str, *sizes: int) -> str:
        """Reshape: 0 keeps the size of that axis, -1 is inferred."""
        return self.add("Reshape", value, np.array(sizes, np.int64))

    def size(self, value: str, axis: int) -> str:
        """The size of an axis, int64 (1,)."""
        return self.add("Shape", value, start=axis, end=axis + 1)

    def conv(self, maps: str, weight: Tensor, bias: Tensor | None, **attributes: Any) -> str:
        """Convolution. `pads` has one number for each axis, used on both sides."""
        pads = attributes.pop("pads", None)
        if pads and any(pads):
            attributes["pads"] = [*pads, *pads]
        parameters = (weight,) if bias is None else (weight, bias)
        return self.add("Conv", maps, *parameters, **attributes)

    def conv_of(self, maps: str, layer: nn.Module, norm: nn.Module | None = None) -> str:
        """A layer nn.Conv1d or nn.Conv2d, with the norm after it folded in."""
        weight, bias = layer.weight, layer.bias
        if norm is not None:
            scale, shift = affine_of(norm)
            weight = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
            bias = shift if bias is None else bias * scale + shift
        attributes = {"strides": layer.stride, "dilations": layer.dilation, "group": layer.groups}
        return self.conv(maps, weight, bias, pads=layer.padding, **attributes)

    def image_of(self, feats: str) -> str:
        """Features (B, T, F) as an image of one channel: (B, 1, F, T)."""
        return self.add("Unsqueeze", self.add("Transpose", feats, perm=[0, 2, 1]), np.array([1]))

    def basic_block(self, maps: str, first: Layers, second: Layers, shortcut: nn.Module) -> str:
        """A residual block: two convolutions with norms, plus the maps, after `shortcut` if it has layers."""
        inner = self.conv_of(self.add("Relu", self.conv_of(maps, *first)), *second)
        around = self.conv_of(maps, *shortcut) if isinstance(shortcut, nn.Sequential) else maps
        return self.add("Relu", self.add("Add", inner, around))

    def norm_of(self, maps: str, norm: nn.Module) -> str:
        """A batch norm that cannot be folded into a neighbouring layer, on maps (B, C, ...)."""
        scale, shift = affine_of(norm)
        zeros, ones = torch.zeros_like(scale), torch.ones_like(scale)
        return self.add("BatchNormalization", maps, scale, shift, zeros, ones, epsilon=0.0)

    def layer_norm(self, values: str, norm: nn.LayerNorm) -> str:
        """A layer norm over the last axis."""
        return self.add("LayerNormalization", values, norm.weight, norm.bias, axis=-1, epsilon=norm.eps)

    def channel_norm(self, maps: str, norm: nn.LayerNorm, planes: bool = False) -> str:
        """A layer norm over the channels of maps (B, C, T), or (B, C, F, T) if `planes`."""
        swap = [0, 3, 2, 1] if planes else [0, 2, 1]
        return self.add("Transpose", self.layer_norm(self.add("Transpose", maps, perm=swap), norm), perm=swap)

    def linear_of(
        self, vectors: str, layer: nn.Linear, before: nn.Module | None = None, after: nn.Module | None = None
    ) -> str:
        """A layer nn.Linear on vectors (B, D), with the batch norms before and after it folded in."""
        weight, bias = layer.weight, layer.bias
        if before is not None:
            scale, shift = affine_of(before)
            weight, bias = weight * scale, weight @ shift if bias is None else bias + weight @ shift
        if after is not None:
            scale, shift = affine_of(after)
            weight, bias = weight * scale[:, None], shift if bias is None else bias * scale + shift
        return self.add("Gemm", vectors, weight, *(() if bias is None else (bias,)), transB=1)

    def gelu(self, maps: str) -> str:
        """GELU in the form that onnxruntime fuses: x * (erf(x / sqrt 2) + 1) / 2."""
        erf = self.add("Erf", self.add("Div", maps, np.array(2**0.5)))
        return self.add("Mul", self.add("Mul", maps, self.add("Add", erf, np.array(1.0))), np.array(0.5))

    def mean(self, maps: str, axis: int, keep: bool = True) -> str:
        """The mean over an axis."""
        return self.add("ReduceMean", maps, axes=[axis], keepdims=int(keep))

    def sum(self, maps: str, axis: int) -> str:
        """The sum over an axis, which keeps size 1."""
        return self.add("ReduceSum", maps, np.array([axis], np.int64), keepdims=1)


def affine_of(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Scale and shift, (C,) each, that are equivalent to a batch norm with its running statistics."""
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.affine:
        return scale * norm.weight, norm.bias - norm.running_mean * scale * norm.weight
    return scale, -norm.running_mean * scale
