"""Crops/s of several processes, with shared or local batch norms, and with or without overlapped gradients.

    torchrun --nproc-per-node 2 -m tests.benchmarks.processes [--conf bc_cmt_tiny] [--batch 16] [--device cpu]

The four variants take turns with whole steps on random crops. Medians of `--rounds` steps are printed. `--batch` is per
process.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace

import torch

from wespeaker_lite.recipe.experiment import load
from wespeaker_lite.training.distributed import GradientSum, Ranks, joined_ranks
from wespeaker_lite.training.job import build_learner
from wespeaker_lite.training.optimiser import build_optimiser

SPEAKERS = 376


def step_of(ranks: Ranks, args: argparse.Namespace, shared: bool, overlapped: bool) -> Callable[[], None]:
    """A training step: forward, backward, the sum of gradients, the optimiser."""
    torch.manual_seed(0)
    experiment = load(f"conf/{args.conf}.yaml")
    device = torch.device(args.device)
    learner = build_learner(experiment, SimpleNamespace(classes=[str(n) for n in range(SPEAKERS)]))
    learner.move_to(device)
    ranks.synchronise(learner, shared)
    gradient_sum = GradientSum(ranks, learner, overlapped)
    optimiser = build_optimiser(experiment.train.optimiser, learner.parameters(), fused=device.type == "cuda")
    feats = torch.randn(args.batch, args.frames, experiment.features.num_mels, device=device)
    labels = torch.randint(SPEAKERS, (args.batch,), device=device)

    def step() -> None:
        losses = learner(feats, labels, labels, epoch=1.0)
        optimiser.zero_grad(set_to_none=True)
        (losses.total / ranks.count).backward()
        gradient_sum.finish()
        optimiser.step()
        losses.total.item()  # waits for the device

    return step


def main() -> None:
    """Print a line for each of the four."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conf", default="bc_cmt_tiny")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with joined_ranks(args.device) as ranks:
        kinds = [(shared, overlapped) for shared in (True, False) for overlapped in (False, True)]
        steps = [step_of(ranks, args, *kind) for kind in kinds]
        times: list[list[float]] = [[] for _ in kinds]
        for turn in range(args.rounds + 1):
            for step, seconds in zip(steps, times, strict=True):
                started = time.perf_counter()
                step()
                if turn:  # the first one warms up
                    seconds.append(time.perf_counter() - started)
        for (shared, overlapped), seconds in zip(kinds, times, strict=True):
            if ranks.is_first:
                median = statistics.median(seconds)
                print(
                    f"batch norms {'shared' if shared else 'local'}, gradients "
                    f"{'overlapped' if overlapped else 'at the end'}: {1e3 * median:.0f} ms a step, "
                    f"{ranks.count * args.batch / median:.1f} crops/s"
                )


if __name__ == "__main__":
    main()
