"""Cost of networks in several runtimes: seconds in interleaved runs, sizes of files, and memory."""

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wespeaker_lite import models
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.deploy import graphs
from wespeaker_lite.deploy.cost import FRAMES_PER_SECOND, LatencyOptions, times_side_by_side
from wespeaker_lite.deploy.front_end import FrontEnd
from wespeaker_lite.deploy.onnx_model import OnnxNetwork
from wespeaker_lite.deploy.quantise import QuantiseOptions, quantise
from wespeaker_lite.deploy.storage import stored
from wespeaker_lite.recipe.experiment import Experiment

# `int8`: onnxruntime, products in 8 bits. `openvino`: OpenVINO in 32 bits, if users have installed it.
RUNTIMES = ("torch", "onnx", "int8", "openvino")
_CALIBRATION = QuantiseOptions(smallest_cosine=-1.0)  # random weights: all products in 8 bits


@dataclass(frozen=True)
class Subject:
    """A network with random weights, its front end, and the folder of its exported files."""

    name: str
    model: nn.Module
    front_end: FrontEnd
    folder: Path

    def bytes_of_files(self) -> dict[str, int]:
        """Size of each exported file."""
        return {path.name: path.stat().st_size for path in sorted(self.folder.iterdir())}


@dataclass(frozen=True)
class Row:
    """A subject, the runtime and number of threads to run it with, and its input: `feats` or `samples`."""

    subject: Subject
    runtime: str
    threads: int
    input: str

    def prepared(self, seconds: float) -> Callable[[], Any]:
        """The function to time, for an utterance of `seconds`."""
        samples, feats = _noise(seconds, self.subject.front_end)
        if self.runtime != "torch":
            file = self.subject.folder / f"{self.input}{'.int8' if self.runtime == 'int8' else ''}.onnx"
            network = (_openvino if self.runtime == "openvino" else OnnxNetwork)(file, self.threads)
            value = torch.from_numpy(samples)[None] if self.input == "samples" else feats
            return lambda: network(value)
        front_end, model = self.subject.front_end, self.subject.model

        def run() -> Tensor:
            torch.set_num_threads(self.threads)
            return model(front_end(samples)[None] if self.input == "samples" else feats)

        return run


def compare(
    experiments: dict[str, Experiment], runtimes: Sequence[str], threads: Sequence[int], options: LatencyOptions
) -> dict[str, Any]:
    """Time networks in each runtime, with each number of threads, with and without front end.

    Returns:
        `latency`: median and quartiles of seconds for each of these and each length. All runs of a length are
        interleaved. `bytes`: sizes of each network's files. `peak_memory`: bytes that onnxruntime adds for 10 s of
        input.

    Raises:
        InputError: for a runtime that is unknown or not installed.
    """
    unknown = set(runtimes) - set(RUNTIMES)
    if unknown:
        raise InputError(f"--runtimes {unknown.pop()}: expected {', '.join(RUNTIMES)}")
    before = torch.get_num_threads()
    try:
        with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
            subjects = [_subject(name, of, Path(folder) / name, "int8" in runtimes) for name, of in experiments.items()]
            ways = (Row(*way) for way in product(subjects, runtimes, threads, ("feats", "samples")))
            rows = [row for row in ways if (row.runtime, row.input) != ("int8", "samples")]  # there is no such file
            return {
                "latency": list(_latency(rows, options)),
                "bytes": {subject.name: subject.bytes_of_files() for subject in subjects},
                "peak_memory": {subject.name: _peak_memory(subject) for subject in subjects},
            }
    finally:
        torch.set_num_threads(before)


def _subject(name: str, experiment: Experiment, folder: Path, in_int8: bool) -> Subject:
    folder.mkdir()
    torch.manual_seed(0)
    model = models.build(experiment.model["name"], experiment.model, experiment.features.num_mels).eval()
    front_end, kind = FrontEnd(experiment.features, experiment.crop.cmn, in_ark=False), experiment.model["name"]
    files = {"samples": graphs.of_samples(kind, model, experiment.features, experiment.crop.cmn, {})}
    of_feats = graphs.of_feats(kind, model, experiment.features.num_mels, {})
    files |= {"feats": of_feats, "feats.fp16": stored(of_feats, "fp16"), "feats.w8": stored(of_feats, "int8")}
    if in_int8:
        rng = np.random.default_rng(0)
        noise = [rng.standard_normal((300, experiment.features.num_mels), np.float32) for _ in range(6)]
        files["feats.int8"] = quantise(of_feats, noise, _CALIBRATION).model
    for file, graph in files.items():
        (folder / f"{file}.onnx").write_bytes(graph.SerializeToString())
    return Subject(name, model, front_end, folder)


def _openvino(file: Path, threads: int) -> Callable[[Tensor], Any]:
    try:
        import openvino
    except ImportError as error:
        raise InputError("--runtimes openvino: install it first: pip install openvino") from error
    options = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(file), "CPU", options)
    return lambda value: compiled(value.numpy())


def _latency(rows: Sequence[Row], options: LatencyOptions) -> Iterator[dict[str, Any]]:
    seconds: list[dict[str, Any]] = [{} for _ in rows]
    for length in options.seconds:
        times = times_side_by_side([row.prepared(length) for row in rows], options.repeats)
        for of_row, found in zip(seconds, times, strict=True):
            quartiles = np.quantile(found, (0.25, 0.75)).round(6).tolist()
            of_row[f"{length:g}"] = {"median": round(statistics.median(found), 6), "quartiles": quartiles}
    for row, of_row in zip(rows, seconds, strict=True):
        way = {"network": row.subject.name, "runtime": row.runtime, "threads": row.threads, "input": row.input}
        yield {**way, "seconds": of_row}


def _noise(seconds: float, front_end: FrontEnd) -> tuple[np.ndarray, Tensor]:
    """Random samples (n,), and random features (1, T, num_mels) with 100 frames per second, as papers count them."""
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 0.1, round(seconds * front_end.features.sample_rate)).astype(np.float32)
    shape = 1, round(seconds * FRAMES_PER_SECOND), front_end.features.num_mels
    return samples, torch.from_numpy(rng.standard_normal(shape, np.float32))


def _peak_memory(subject: Subject) -> int:
    """Bytes that loading and running the file adds to a process with onnxruntime, for 10 s of input."""
    shape = 1, 10 * FRAMES_PER_SECOND, subject.front_end.features.num_mels
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    command = [sys.executable, "-c", _RUN_AND_SHOW_PEAK, str(subject.folder / "feats.onnx"), *map(str, shape)]
    return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


# Runs in a new process, so that nothing else counts: the peak resident size minus the peak before loading.
_RUN_AND_SHOW_PEAK = """
import re, sys
import numpy, onnxruntime

def peak():
    return 1024 * int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read()).group(1))

before = peak()
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
session.run(None, {session.get_inputs()[0].name: numpy.zeros(tuple(map(int, sys.argv[2:])), numpy.float32)})
print(peak() - before)
"""
