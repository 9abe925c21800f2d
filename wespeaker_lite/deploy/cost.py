"""Cost of a network: parameters, multiply-accumulates, and seconds per utterance."""

import contextlib
import functools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from wespeaker_lite import distill, models
from wespeaker_lite.core import plugins
from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.distill.outputs import outputs_for_silence
from wespeaker_lite.distill.term import Partners
from wespeaker_lite.models.margin import build_head
from wespeaker_lite.recipe.experiment import Experiment

FRAMES_PER_SECOND = 100  # 1 s of audio gives 98 frames of 10 ms without context; papers count 100


@dataclass(frozen=True)
class LatencyOptions:
    """How to time a network: one utterance at a time, the median of `repeats` runs on `threads` CPU threads."""

    seconds: Sequence[float] = (1, 2, 3, 5, 10)
    threads: int = 1
    repeats: int = 10

    def __post_init__(self) -> None:
        if min(self.threads, self.repeats) < 1 or min(self.seconds) * FRAMES_PER_SECOND < 1:
            raise InputError("latency: threads, repeats and the frames of every length must be at least 1")


def count_parameters(module: nn.Module) -> int:
    """Number of parameters, trained or frozen. Running statistics do not count."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(model: nn.Module, num_mels: int, frames: int = FRAMES_PER_SECOND) -> int:
    """Multiply-accumulates of one utterance of `frames` frames in eval mode: convolutions and matrix products.

    Operations whose cost is linear in the number of activations (norms, non-linearities, pooling sums) are not counted,
    as in the tables of papers. A layer with its own implementation of convolution returns its MACs by `macs(output)`.
    """
    # The counter knows the products of plain attention, but not the fused kernel for CPUs.
    plain = sdpa_kernel(SDPBackend.MATH)
    with _evaluating(model), torch.no_grad(), plain, _own_macs(model) as own, FlopCounterMode(display=False) as counter:
        model(_noise(model, frames, num_mels))
    return counter.get_total_flops() // 2 + sum(own)


@contextlib.contextmanager
def _own_macs(model: nn.Module) -> Iterator[list[int]]:
    """Collect the MACs of each pass through a layer that has a method `macs`."""
    own: list[int] = []
    layers = [module for module in model.modules() if hasattr(module, "macs")]
    hooks = [layer.register_forward_hook(lambda layer, _, output: own.append(layer.macs(output))) for layer in layers]
    try:
        yield own
    finally:
        for hook in hooks:
            hook.remove()


def latency(model: nn.Module, num_mels: int, options: LatencyOptions) -> dict[str, float]:
    """Median seconds from features to embedding, for each length of utterance. Keys are lengths in seconds, as text."""
    with _threads(options.threads), _evaluating(model), torch.inference_mode():
        return {
            f"{seconds:g}": _median_time(
                model, _noise(model, round(seconds * FRAMES_PER_SECOND), num_mels), options.repeats
            )
            for seconds in options.seconds
        }


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _median_time(model: nn.Module, feats: Tensor, repeats: int) -> float:
    (times,) = times_side_by_side([lambda: model(feats).cpu()], repeats)  # .cpu() waits for a GPU's result
    return statistics.median(times)


def times_side_by_side(runs: Sequence[Callable[[], object]], repeats: int) -> list[list[float]]:
    """Seconds of each of `runs`, `repeats` times. Runs are interleaved, so that load on the machine affects all."""
    for run in runs:
        run()  # the first run of a shape also allocates memory and chooses kernels
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for run, of_run in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            of_run.append(time.perf_counter() - start)
    return times


def _noise(model: nn.Module, frames: int, num_mels: int) -> Tensor:
    # A separate generator, because measuring must not change the random state of training.
    noise = torch.randn(1, frames, num_mels, generator=torch.Generator().manual_seed(0))
    return noise.to(next(model.parameters()).device)


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def training_parts(experiment: Experiment, model: nn.Module, classes: int) -> dict[str, nn.Module]:
    """Modules that are trained with the network `model` but not deployed, by name, for `classes` training speakers.

    These are the head and the KD terms that need no teacher. The sizes of other terms depend on the teacher.
    """
    head = build_head(to_mapping(experiment.head), model.embed_dim, classes)
    package = distill.__name__
    sections = experiment.distill.terms
    alone = [section for section in sections if not plugins.find(package, section, package)[0].Term.needs_teacher]
    if not alone:
        return {"head": head}
    frames = experiment.crop.frames
    shown = outputs_for_silence(model, frames, experiment.features.num_mels)
    return {"head": head, **distill.build_terms(alone, Partners(shown, None, experiment.head, classes, frames))}


def report(
    model: nn.Module, num_mels: int, training_only: Mapping[str, nn.Module], timing: LatencyOptions | None
) -> dict[str, Any]:
    """The cost of the deployed network, of modules for training only, and the latency if `timing` is given."""
    result: dict[str, Any] = {"params": count_parameters(model), "macs_1s": count_macs(model, num_mels)}
    if training_only:
        result["training_only_params"] = {name: count_parameters(part) for name, part in training_only.items()}
    if timing is not None:
        result["latency_seconds"] = latency(model, num_mels, timing)
        result["latency_threads"] = timing.threads
    return result


def table(experiments: Mapping[str, Experiment], timing: LatencyOptions | None) -> list[str]:
    """Lines of a Markdown table with the cost of each config's network, by name. Timed runs are interleaved.

    MACs are for 100 frames. There is a column of median latencies for each of `timing.seconds`. Latencies are relative
    to the first network, so that they apply to other machines too. The title has its milliseconds.
    """
    networks = {
        name: models.build(e.model["name"], e.model, e.features.num_mels).eval() for name, e in experiments.items()
    }
    mels = [e.features.num_mels for e in experiments.values()]
    lengths = () if timing is None else timing.seconds
    columns = [_milliseconds(list(networks.values()), mels, seconds, timing) for seconds in lengths]
    times = [f"{seconds:g} s ({of[0]:.0f} ms)" for seconds, of in zip(lengths, columns, strict=True)]
    titles = ["conf", "parameters", "M MACs, 1 s", *times]
    lines = [f"| {' | '.join(titles)} |", f"| :--- {'| ---: ' * (len(titles) - 1)}|"]
    for index, (name, network) in enumerate(networks.items()):
        macs = count_macs(network, mels[index]) / 1e6
        cells = [name, f"{count_parameters(network):,}", f"{macs:.1f}", *(f"{of[index] / of[0]:.2f}" for of in columns)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _milliseconds(
    networks: Sequence[nn.Module], mels: Sequence[int], seconds: float, timing: LatencyOptions
) -> list[float]:
    frames = round(seconds * FRAMES_PER_SECOND)
    inputs = [_noise(network, frames, count) for network, count in zip(networks, mels, strict=True)]
    runs = [functools.partial(network, feats) for network, feats in zip(networks, inputs, strict=True)]
    with _threads(timing.threads), torch.inference_mode():
        return [1000 * statistics.median(times) for times in times_side_by_side(runs, timing.repeats)]
