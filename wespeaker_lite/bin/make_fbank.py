"""Compute the log mel filterbanks of a data dir into an ark."""

import argparse
from pathlib import Path

from wespeaker_lite.bin import run
from wespeaker_lite.core.config import from_mapping
from wespeaker_lite.recipe import resolved


def main() -> None:
    """Parse the arguments and call `make_fbanks`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, type=Path, help="data dir with wav.scp, and segments if it has them")
    parser.add_argument(
        "--out", required=True, help="prefix of the files to write: .ark .scp .utt2num_frames .utt2dur [.bad]"
    )
    parser.add_argument("--config", default="", help="config.yaml of an experiment, whose section `features` is used")
    parser.add_argument(
        "--speed", type=float, default=1.0, help="factor of the speed (default: 1); ids get a prefix such as sp0.9-"
    )
    kinds = ["reverb", "noise", "music", "babble"]
    parser.add_argument("--copy", default="", choices=kinds, help="kind of augmented copy to make; ids end in it")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random choices of a copy")
    parser.add_argument("--musan", default="", help="data dir of noise, music and speech, made by list_clips")
    parser.add_argument("--rirs", default="", help="data dir of impulse responses; by default they are simulated")
    parser.add_argument(
        "--max-bad",
        type=int,
        default=0,
        help="most unreadable utterances to leave out before it is an error (default: 0)",
    )
    parser.add_argument("--no-pipes", action="store_true", help="refuse a wav.scp that contains a command")
    args = parser.parse_args()
    import torch

    from wespeaker_lite.audio.fbank import FbankConfig
    from wespeaker_lite.corpora.augmented_copies import Copy
    from wespeaker_lite.corpora.fbank_job import FbankJob, make_fbanks

    torch.set_num_threads(1)  # jobs run in parallel
    section = resolved.read(args.config).get("features", {}) if args.config else {}
    features = from_mapping(FbankConfig, section, f"{args.config}: features")
    copy = Copy(args.speed, args.copy, args.seed, args.musan, args.rirs)
    make_fbanks(FbankJob(args.data, args.out, features, copy, args.max_bad, not args.no_pipes))


if __name__ == "__main__":
    run(main)
