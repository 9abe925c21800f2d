"""What a network costs: parameters, multiply-accumulates, and seconds per utterance."""

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

FRAMES_PER_SECOND = 100  # frames of 10 ms; 1 s of audio without context gives 98, peers count 100


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
    """Number of parameters, trained or frozen; running statistics are not parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(model: nn.Module, num_mels: int, frames: int = FRAMES_PER_SECOND) -> int:
    """Multiply-accumulates of one utterance of `frames` frames in eval mode: convolutions and matrix products.

    What is linear in the number of activations (norms, non-linearities, pooling sums) is not counted, as in the
    tables of papers. A layer that convolves in a way of its own says what that takes, by `macs(output)`.
    """
    # Only the plain attention is taken apart into products that the counter knows; the fused CPU one is not.
    plain = sdpa_kernel(SDPBackend.MATH)
    with _evaluating(model), torch.no_grad(), plain, _own_macs(model) as own, FlopCounterMode(display=False) as counter:
        model(_noise(model, frames, num_mels))
    return counter.get_total_flops() // 2 + sum(own)


@contextlib.contextmanager
def _own_macs(model: nn.Module) -> Iterator[list[int]]:
    """Collect what the layers with a `macs` say of their passes."""
    own: list[int] = []
    layers = [module for module in model.modules() if hasattr(module, "macs")]
    hooks = [layer.register_forward_hook(lambda layer, _, output: own.append(layer.macs(output))) for layer in layers]
    try:
        yield own
    finally:
        for hook in hooks:
            hook.remove()


def latency(model: nn.Module, num_mels: int, options: LatencyOptions) -> dict[str, float]:
    """Median seconds from features to embedding for each length of utterance, by its length in seconds as text."""
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
    (times,) = times_side_by_side([lambda: model(feats).cpu()], repeats)  # on a GPU .cpu() waits for the result
    return statistics.median(times)


def times_side_by_side(runs: Sequence[Callable[[], object]], repeats: int) -> list[list[float]]:
    """Seconds that each of `runs` takes, `repeats` times in turn, so that a busy machine is busy for all of them."""
    for run in runs:
        run()  # the first run of a shape pays for memory and kernel choice
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for run, of_run in zip(runs, times, strict=True):
            start = time.perf_counter()
            run()
            of_run.append(time.perf_counter() - start)
    return times


def _noise(model: nn.Module, frames: int, num_mels: int) -> Tensor:
    # A generator of its own: measuring must not move the random state of a training run.
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
    """What a config trains beside its network `model` and never deploys, by name, for so many training speakers.

    The head, and those KD terms that need no pretrained teacher; what others train depends on the teacher's sizes.
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
    """The cost of what is deployed, what only training needs apart from it, and the latency if `timing` is given."""
    result: dict[str, Any] = {"params": count_parameters(model), "macs_1s": count_macs(model, num_mels)}
    if training_only:
        result["training_only_params"] = {name: count_parameters(part) for name, part in training_only.items()}
    if timing is not None:
        result["latency_seconds"] = latency(model, num_mels, timing)
        result["latency_threads"] = timing.threads
    return result


def table(experiments: Mapping[str, Experiment], timing: LatencyOptions | None) -> list[str]:
    """Lines of a Markdown table of what the networks of configs cost, by name; all are timed side by side.

    MACs are those of 100 frames. Latencies, medians for each of `timing.seconds`, are multiples of the first network's,
    which hold on other machines too; its milliseconds are in the title.
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
