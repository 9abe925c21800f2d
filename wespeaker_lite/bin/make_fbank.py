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
    kinds = ["reverb", "noise", "music", "babble"]
    parser.add_argument("--copy", default="", choices=kinds, help="make a copy of this kind; ids end in it")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn for a copy")
    parser.add_argument("--musan", default="", help="data dir of noise, music and speech, of list_clips")
    parser.add_argument("--rirs", default="", help="data dir of rooms, of list_clips; without it they are simulated")
    parser.add_argument("--max-bad", type=int, default=0, help="unreadable utterances that may be left out")
    args = parser.parse_args()
    import torch

    from wespeaker_lite.data.copies import Copy
    from wespeaker_lite.features.fbank import FbankConfig
    from wespeaker_lite.features.job import FbankJob, make_fbanks

    torch.set_num_threads(1)  # jobs run side by side
    try:
        features = from_mapping(FbankConfig, json.loads(args.features), "--features")
    except json.JSONDecodeError as error:
        raise InputError(f"--features {args.features!r}: not JSON: {error}") from error
    copy = Copy(args.speed, args.copy, args.seed, args.musan, args.rirs)
    make_fbanks(FbankJob(args.data, args.out, features, copy, args.max_bad))


if __name__ == "__main__":
    run(main)
