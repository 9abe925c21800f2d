"""BC-CMT's layers against plain PyTorch layers: training, inference, and latency beside other networks.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.bc_cmt [--threads 1] [--batch 16]

Both networks are Tiny with the same weights, and give the same results (tests/models/test_bc_cmt.py). They take turns,
and medians are printed. Rates depend on the machine; the ratios are more general.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from tests.models.plain_bc_cmt import PlainNetwork
from wespeaker_lite import models
from wespeaker_lite.deploy.cost import LatencyOptions, latency

TURNS = 7
NETWORKS = {
    "BC-CMT Tiny": ("bc_cmt", {}),
    "BC-CMT Tiny 2-D": ("bc_cmt", {"attention": "2d", "groups": 8}),
    "ECAPA c512": ("ecapa_tdnn", {"channels": 512}),
    "ResNet34": ("resnet", {"depth": 34}),
}


def compare(fast: Callable[[], object], plain: Callable[[], object], turns: int = TURNS) -> tuple[float, float]:
    """Median seconds of both; they take turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(turns + 1):
        for side, run in zip(times, (fast, plain), strict=True):
            started = time.perf_counter()
            run()
            if turn:  # the first one warms up
                side.append(time.perf_counter() - started)
    return statistics.median(times[0]), statistics.median(times[1])


def training_step(network: nn.Module, feats: torch.Tensor) -> Callable[[], object]:
    """A forward and a backward pass."""

    def step() -> None:
        network.zero_grad()
        network(feats).float().square().sum().backward()

    return step


def main() -> None:
    """Print a table of ratios and one of latencies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument(
        "--bf16", action="store_true", help="also in bf16: slow where the CPU has no instructions for it"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    fast = models.build("bc_cmt", {}, 80)
    plain = PlainNetwork(models.bc_cmt.Config()).load(fast)
    for seconds, half in ((1, False), (2, False), *([(1, True)] if args.bf16 else [])):
        feats = torch.randn(args.batch, 100 * seconds, 80)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            ours, theirs = compare(training_step(fast, feats), training_step(plain, feats))
        print(
            f"training, {seconds} s crops, batch {args.batch}, {'bf16' if half else 'fp32'}: {args.batch / ours:.1f} "
            f"crops/s, plain layers {args.batch / theirs:.1f}, ratio {theirs / ours:.2f}"
        )
    fast.eval(), plain.eval()
    with torch.inference_mode():
        for seconds in (1, 2, 3, 5, 10):
            feats = torch.randn(1, 100 * seconds, 80)
            ours, theirs = compare(lambda x=feats: fast(x), lambda x=feats: plain(x), turns=15)
            rate = f"{1e3 * ours:.1f} ms, plain layers {1e3 * theirs:.1f}, ratio {theirs / ours:.2f}"
            print(f"inference of {seconds} s: {rate}")
    options = LatencyOptions(threads=args.threads)
    for name, (network, config) in NETWORKS.items():
        times = latency(models.build(network, config, 80).eval(), 80, options)
        said = ", ".join(f"{1e3 * value:.1f} ms for {seconds} s" for seconds, value in times.items())
        print(f"{name}: {said}; 10 s take {times['10'] / times['1']:.1f} times 1 s")


if __name__ == "__main__":
    main()
