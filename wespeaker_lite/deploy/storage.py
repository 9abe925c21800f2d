"""Models with matrices stored in 16 or 8 bits. Runtimes convert them to 32 bits on loading."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

Storage = Literal["fp32", "fp16", "int8"]


def stored(model: onnx.ModelProto, storage: Storage) -> onnx.ModelProto:
    """A copy with its float matrices stored as `storage`. Biases and others with fewer than 2 axes keep 32 bits."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    if storage == "fp32":
        return result
    weights, nodes = [], []
    for weight in model.graph.initializer:
        array = numpy_helper.to_array(weight)
        if array.dtype != np.float32 or array.ndim < 2:
            weights.append(weight)
            continue
        for part in (_in_16_bits if storage == "fp16" else _in_8_bits)(weight.name, array):
            (nodes if isinstance(part, onnx.NodeProto) else weights).append(part)
    for field, content in ((result.graph.initializer, weights), (result.graph.node, [*nodes, *model.graph.node])):
        del field[:]
        field.extend(content)
    onnx.checker.check_model(result, full_check=True)
    return result


def _in_16_bits(name: str, array: np.ndarray) -> Iterator[onnx.TensorProto | onnx.NodeProto]:
    if np.abs(array).max() >= np.finfo(np.float16).max:
        yield numpy_helper.from_array(array, name)
        return
    yield numpy_helper.from_array(array.astype(np.float16), f"{name}_half")
    yield helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT)


def _in_8_bits(name: str, array: np.ndarray) -> Iterator[onnx.TensorProto | onnx.NodeProto]:
    """Integers from -127 to 127, with a step for each row, which is an output channel of a convolution.

    Uses Cast and Mul instead of DequantizeLinear, because onnxruntime computes them only once, on loading.
    """
    steps = np.abs(array).max(tuple(range(1, array.ndim)), keepdims=True) / np.float32(127)
    steps[steps == 0] = 1
    yield numpy_helper.from_array(np.round(array / steps).astype(np.int8), f"{name}_int8")
    yield numpy_helper.from_array(steps.astype(np.float32), f"{name}_step")
    yield helper.make_node("Cast", [f"{name}_int8"], [f"{name}_wide"], to=onnx.TensorProto.FLOAT)
    yield helper.make_node("Mul", [f"{name}_wide", f"{name}_step"], [name])
