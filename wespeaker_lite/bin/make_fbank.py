"""Compute the log mel filterbanks of a data dir into an ark."""

import argparse
import json
from pathlib import Path

from wespeaker_lite.bin import run
from wespeaker_lite.config import from_mapping
from wespeaker_lite.errors import InputError


def main() -> None:
    """Parse the arguments and compute."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, type=Path, help="data dir with wav.scp, and segments if it has them")
    parser.add_argument("--out", required=True, help="prefix of .ark .scp .utt2num_frames .utt2dur [.bad]")
    parser.add_argument("--features", default="{}", help='JSON, such as \'{"num_mels": 80, "sample_rate": 16000}\'')
    parser.add_argument("--speed", type=float, default=1.0, help="play so fast; ids get a prefix such as sp0.9-")
    parser.add_argument("--max-bad", type=int, default=0, help="unreadable utterances that may be left out")
    args = parser.parse_args()
    import torch

    from wespeaker_lite.features.fbank import FbankConfig
    from wespeaker_lite.features.job import FbankJob, make_fbanks

    torch.set_num_threads(1)  # jobs run side by side
    try:
        features = from_mapping(FbankConfig, json.loads(args.features), "--features")
    except json.JSONDecodeError as error:
        raise InputError(f"--features {args.features!r}: not JSON: {error}") from error
    make_fbanks(FbankJob(args.data, args.out, features, args.speed, args.max_bad))


if __name__ == "__main__":
    run(main)
