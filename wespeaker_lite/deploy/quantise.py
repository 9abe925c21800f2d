"""8-bit arithmetic by onnxruntime's static quantisation, in the layers where it changes embeddings little.

Candidates are products over channels, since they are as fast or faster in 8 bits. Grouped convolutions, such as the
banded products of BC-CMT, take a third longer in 8 bits, and stay in float. So do norms, activations, attention and
pooling.
"""

import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from wespeaker_lite.core.errors import InputError
from wespeaker_lite.core.progress import with_progress
from wespeaker_lite.deploy.onnx_model import cosines, session_of
from wespeaker_lite.deploy.storage import stored

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class QuantiseOptions:
    """`smallest_cosine`: lowest accepted mean cosine of the probes' embeddings, 8-bit and float.

    A third of the utterances are probes. The others calibrate the ranges of activations.
    """

    smallest_cosine: float = 0.995
    utterances: int = 96
    frames: int = 300


@dataclass(frozen=True)
class Quantised:
    """A model in 8 bits, the mean `cosine` of the probes, and the number of products in 8 bits.

    `kept` has the names of candidates that stay in float, with 1 minus the mean cosine when only that one is in 8 bits.
    """

    model: onnx.ModelProto
    cosine: float
    products: int
    kept: Mapping[str, float]


def quantise(model: onnx.ModelProto, feats: Sequence[np.ndarray], options: QuantiseOptions) -> Quantised:
    """Quantise a model, calibrated on features (T, num_mels) of training utterances. The file stores floats in 8 bits.

    All candidates are tried first. If the cosine is too low, each is measured alone. Then the most harmful ones return
    to float, twice as many at each try, until the cosine is high enough.

    Raises:
        InputError: if there are too few utterances, or the cosine is too low even with half of the candidates in float.
    """
    if len(feats) < 3:
        raise InputError(f"--int8: {len(feats)} utterances for calibration; at least 3 are needed")
    probes, calibration = feats[::3], [one for number, one in enumerate(feats) if number % 3]
    wanted = _embeddings(model, probes)
    candidates = _candidates(model)
    with tempfile.TemporaryDirectory() as folder:
        trial = _Trials(model, calibration, Path(folder))

        def cosine_of(names: Sequence[str]) -> tuple[onnx.ModelProto, float]:
            found = trial.quantised(names)
            return found, float(cosines(_embeddings(found, probes), wanted).mean())

        result, cosine = cosine_of(candidates)
        harm: dict[str, float] = {}
        if not cosine >= options.smallest_cosine:  # also true for nan
            harm = {name: 1 - cosine_of([name])[1] for name in with_progress(candidates, len(candidates), "products")}
        order, count = sorted(harm, key=harm.get, reverse=True), 1
        while not cosine >= options.smallest_cosine:
            if count >= len(candidates):
                raise InputError("--int8: 8 bits change the embeddings of this network too much")
            result, cosine = cosine_of([name for name in candidates if name not in order[:count]])
            count *= 2
    kept = {name: harm[name] for name in order[: count // 2]}
    log.info("int8: %d of %d products, mean cosine %.4f", len(candidates) - len(kept), len(candidates), cosine)
    return Quantised(_with_metadata(stored(result, "int8"), model), cosine, len(candidates) - len(kept), kept)


def _candidates(model: onnx.ModelProto) -> list[str]:
    """Names of the ungrouped products with a constant matrix, over channels, except the first convolution."""
    weights = {weight.name for weight in model.graph.initializer}
    first = next(node.name for node in model.graph.node if node.op_type == "Conv")  # the features stay exact
    return [
        node.name
        for node in model.graph.node
        if node.op_type in ("Conv", "Gemm", "MatMul")
        and node.input[1] in weights
        and node.name != first
        and all(attribute.i == 1 for attribute in node.attribute if attribute.name == "group")
    ]


class _Trials:
    """Quantises one model with different products. The ranges of activations are measured once."""

    def __init__(self, model: onnx.ModelProto, calibration: Sequence[np.ndarray], folder: Path) -> None:
        self._calibration, self._folder = calibration, folder
        self._input = model.graph.input[0].name
        marked = onnx.ModelProto()
        marked.CopyFrom(model)
        # Tells onnxruntime that the model is preprocessed: norms are folded where possible.
        onnx.helper.set_model_props(marked, {"onnx.quant.pre_process": "onnxruntime.quant"})
        onnx.save(marked, folder / "float.onnx")

    def quantised(self, names: Sequence[str]) -> onnx.ModelProto:
        quantize_static(
            self._folder / "float.onnx", self._folder / "quantised.onnx", _Reader(self._input, self._calibration),
            quant_format=QuantFormat.QDQ, per_channel=True, activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8, nodes_to_quantize=list(names),
            calibration_cache_path=self._folder / "ranges.json",
        )  # fmt: skip
        return onnx.load(self._folder / "quantised.onnx")


class _Reader(CalibrationDataReader):
    def __init__(self, name: str, feats: Sequence[np.ndarray]) -> None:
        self._inputs = iter([{name: one[None]} for one in feats])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._inputs, None)


def _embeddings(model: onnx.ModelProto, feats: Sequence[np.ndarray]) -> np.ndarray:
    session = session_of(model.SerializeToString(), threads=1)
    (name,) = (value.name for value in session.get_inputs())
    return np.concatenate([session.run(None, {name: one[None]})[0] for one in feats]).astype(np.float64)


def _with_metadata(model: onnx.ModelProto, of: onnx.ModelProto) -> onnx.ModelProto:
    onnx.helper.set_model_props(model, {entry.key: entry.value for entry in of.metadata_props})
    model.producer_name = of.producer_name
    return model
