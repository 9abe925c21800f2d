"""Training crops/s and peak memory with and without a self-teacher, for whole steps on random crops.

python -m tests.benchmarks.self_teacher [--models resnet18 ecapa_c256] [--precision fp32] [--batch 16] [--threads 1]

Steps with and without self-teacher take turns; the median ratio is printed. Memory is the peak of a separate process
for each, with its memory before the first step.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace

import torch

from wespeaker_lite.core.devices import HALF
from wespeaker_lite.recipe.experiment import load
from wespeaker_lite.training.job import build_learner
from wespeaker_lite.training.optimiser import build_optimiser

SPEAKERS, MEGABYTE = 376, 1024  # ru_maxrss is in kilobytes


def step_of(name: str, args: argparse.Namespace) -> Callable[[], None]:
    """A training step of conf/NAME.yaml: forward, backward, optimiser."""
    torch.manual_seed(0)
    experiment = load(f"conf/{name}.yaml")
    learner = build_learner(experiment, SimpleNamespace(classes=[str(n) for n in range(SPEAKERS)]))
    optimiser = build_optimiser(experiment.train.optimiser, learner.parameters())
    feats = torch.randn(args.batch, args.frames, experiment.features.num_mels)
    labels = torch.randint(SPEAKERS, (args.batch,))
    dtype = HALF.get(args.precision)

    def step() -> None:
        with torch.autocast("cpu", dtype, enabled=dtype is not None):
            losses = learner(feats, labels, labels, epoch=1.0)
        optimiser.zero_grad(set_to_none=True)
        losses.total.backward()
        optimiser.step()

    return step


def seconds(step: Callable[[], None], steps: int) -> float:
    """The mean time of a step."""
    started = time.perf_counter()
    for _ in range(steps):
        step()
    return (time.perf_counter() - started) / steps


def compare_speed(name: str, args: argparse.Namespace) -> None:
    plain, taught = step_of(name, args), step_of(f"{name}_skdfe", args)
    for step in (plain, taught):
        step()
    rounds = [(seconds(plain, args.steps), seconds(taught, args.steps)) for _ in range(args.rounds)]
    ratios = [b / a for a, b in rounds]
    fast, slow = (args.batch / statistics.median(column) for column in zip(*rounds, strict=True))
    print(
        f"{name}: {fast:.1f} crops/s plain, {slow:.1f} with self-teacher; a step takes "
        f"{statistics.median(ratios):.2f} times as long ({min(ratios):.2f} to {max(ratios):.2f})"
    )


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // MEGABYTE


def measure_memory(name: str, args: argparse.Namespace) -> None:
    """Print the peak memory of this process in MB, before the first step and after some steps."""
    step = step_of(name, args)
    before = peak_memory()
    for _ in range(3):
        step()
    print(before, peak_memory())


def compare_memory(name: str, options: list[str]) -> None:
    peaks = []
    for conf in (name, f"{name}_skdfe"):
        command = [sys.executable, "-m", "tests.benchmarks.self_teacher", *options, "--memory-of", conf]
        before, peak = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
        peaks.append(peak)
        print(f"{conf}: {peak} MB at the peak, {before} MB before the first step")
    print(f"{name}: memory ratio {peaks[1] / peaks[0]:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["resnet18", "ecapa_c256"])
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--steps", type=int, default=2, help="steps of each kind in a turn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory-of", metavar="CONF", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.memory_of:
        measure_memory(args.memory_of, args)
        return
    # Memory first: a process inherits the peak of its parent.
    print(f"batches of {args.batch} crops of {args.frames} frames, {args.precision}, {args.threads} thread(s)")
    for name in args.models:
        compare_memory(name, sys.argv[1:])
    for name in args.models:
        compare_speed(name, args)


if __name__ == "__main__":
    main()
