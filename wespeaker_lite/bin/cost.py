"""Print the cost of a config's network as one JSON object, or the costs of several networks as a table.

params and macs_1s are those of the deployed network. macs_1s are multiply-accumulates for 1 s of input (100 frames).

Examples:
    python -m wespeaker_lite.bin.cost --config conf/bc_cmt_tiny.yaml --latency
    python -m wespeaker_lite.bin.cost --config conf/bc_cmt_tiny.yaml --latency --runtimes torch,onnx
    python -m wespeaker_lite.bin.cost --table conf/*.yaml --latency
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wespeaker_lite import models
from wespeaker_lite.bin import run
from wespeaker_lite.core.errors import InputError
from wespeaker_lite.deploy.cost import LatencyOptions, report, table, training_parts
from wespeaker_lite.recipe import experiment


def main() -> None:
    """Parse the arguments and call `wespeaker_lite.deploy.cost`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", help="a file of conf/, or the config.yaml of an experiment")
    what.add_argument(
        "--table", nargs="+", metavar="CONF", help="print a Markdown table of the networks of these confs"
    )
    parser.add_argument(
        "--classes",
        type=int,
        help="number of training speakers; with it, parts for training only (head, self-teacher) are counted apart",
    )
    parser.add_argument("--latency", action="store_true", help="also measure the time for 1, 2, 3, 5 and 10 s of input")
    parser.add_argument("--threads", type=int, default=1, help="threads for --latency (default: 1)")
    parser.add_argument("--repeats", type=int, default=10, help="runs per length, the median counts (default: 10)")
    parser.add_argument(
        "--runtimes",
        type=lambda words: words.split(","),
        help="runtimes for --latency: torch,onnx,int8,openvino, each on one thread and two, from features and samples; "
        "also sizes of files and peak memory",
    )
    parser.add_argument(
        "--beside",
        nargs="*",
        default=["conf/ecapa_c512.yaml", "conf/campplus.yaml"],
        metavar="CONF",
        help="networks to measure in the same run, with --runtimes (default: conf/ecapa_c512.yaml conf/campplus.yaml)",
    )
    args = parser.parse_args()
    if args.runtimes and not args.latency:
        raise InputError("--runtimes needs --latency")
    timing = LatencyOptions(threads=args.threads, repeats=args.repeats) if args.latency else None
    if args.table:
        print("\n".join(table(_by_network(args.table), timing)))
        return
    config = experiment.load(args.config)
    model = models.build(config.model["name"], config.model, config.features.num_mels)
    training_only = training_parts(config, model, args.classes) if args.classes is not None else {}
    plain = None if args.runtimes else timing
    result = report(model, config.features.num_mels, training_only, plain)
    if args.runtimes:
        result["runtimes"] = _in_runtimes(args, timing)
    print(json.dumps(result))


def _by_network(paths: Sequence[str]) -> dict[str, experiment.Experiment]:
    """The confs by name. If several have the same network and features, only the first is kept."""
    found: dict[str, experiment.Experiment] = {}
    for path in paths:
        config = experiment.load(path)
        if not any((config.model, config.features.num_mels) == (e.model, e.features.num_mels) for e in found.values()):
            found[Path(path).stem] = config
    return found


def _in_runtimes(args: argparse.Namespace, timing: LatencyOptions) -> dict[str, Any]:
    try:
        from wespeaker_lite.deploy.runtimes import compare
    except ImportError as error:
        raise InputError(f"{error}: install what --runtimes needs: tools/install.sh --extras export") from error
    confs = {Path(path).stem: experiment.load(path) for path in (args.config, *args.beside)}
    return compare(confs, args.runtimes, (1, 2), timing)


if __name__ == "__main__":
    run(main)
