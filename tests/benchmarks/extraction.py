"""Utterances per second of extraction: batches by length against single utterances, with the same network in one run.

python -m tests.benchmarks.extraction [--config conf/ecapa_c64_kd.yaml] [--threads 1]
"""

import argparse
import statistics
import time

import torch

from wespeaker_lite.core.config import to_mapping
from wespeaker_lite.extraction.extract import Batching, batches_of_like_length, embed
from wespeaker_lite.recipe import trained_model
from wespeaker_lite.recipe.experiment import load

UTTERANCES, ROUNDS = 120, 3


def main() -> None:
    """Time both ways in turn and print utterances/s and the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="conf/ecapa_c64_kd.yaml")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    config = to_mapping(load(args.config))
    network = trained_model.build_model(config).eval()
    frames = {f"u{n}": int(count) for n, count in enumerate(torch.randint(150, 600, (UTTERANCES,)))}
    feats = {name: torch.randn(count, config["features"]["num_mels"]) for name, count in frames.items()}
    print(f"{UTTERANCES} utterances of 1.5 to 6 s, {args.config}, {args.threads} thread(s)")
    for frames_of_batch in (2000, 6000):
        batches = list(batches_of_like_length(frames, Batching(frames_of_batch)))
        ratios, rates = [], []
        for _ in range(ROUNDS):
            alone = timed(network, [[feats[name]] for name in frames])
            batched = timed(network, [[feats[name] for name in batch] for batch in batches])
            ratios.append(alone / batched)
            rates.append((UTTERANCES / alone, UTTERANCES / batched))
        one, many = (statistics.median(rate) for rate in zip(*rates, strict=True))
        print(
            f"batches of {frames_of_batch} frames: {many:.1f} utt/s, one by one {one:.1f} utt/s, "
            f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


def timed(network: torch.nn.Module, batches: list[list[torch.Tensor]]) -> float:
    """Seconds to embed all batches."""
    started = time.perf_counter()
    for batch in batches:
        embed(network, batch)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
