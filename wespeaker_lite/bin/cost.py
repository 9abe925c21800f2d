"""Print what the network of a config costs, as one JSON object.

params and macs_1s are of what is deployed; macs_1s are multiply-accumulates for 1 s of input (100 frames).
"""

import argparse
import json

from wespeaker_lite import experiment, models
from wespeaker_lite.bin import run
from wespeaker_lite.deploy.cost import LatencyOptions, report, training_parts


def main() -> None:
    """Parse the arguments and ask `wespeaker_lite.deploy.cost`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", required=True, help="a file of conf/, or the config.yaml of an experiment")
    parser.add_argument(
        "--classes",
        type=int,
        help="training speakers: also counts what only training needs (head, self-teacher), apart",
    )
    parser.add_argument("--latency", action="store_true", help="time it as well, for 1, 2, 3, 5 and 10 s of input")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads for --latency (default: 1)")
    parser.add_argument("--repeats", type=int, default=10, help="runs per length, the median counts (default: 10)")
    args = parser.parse_args()
    config = experiment.load(args.config)
    model = models.build(config.model["name"], config.model, config.features.num_mels)
    training_only = training_parts(config, model, args.classes) if args.classes is not None else {}
    timing = LatencyOptions(threads=args.threads, repeats=args.repeats) if args.latency else None
    print(json.dumps(report(model, config.features.num_mels, training_only, timing)))


if __name__ == "__main__":
    run(main)
