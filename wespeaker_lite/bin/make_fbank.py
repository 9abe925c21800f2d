"""Compute the log mel filterbanks of a data dir into an ark."""

import argparse
from pathlib import Path

from wespeaker_lite.bin import run
from wespeaker_lite.core.config import from_mapping
from wespeaker_lite.recipe import resolved


def main() -> None:
    """Parse the arguments and compute."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, type=Path, help="data dir with wav.scp, and segments if it has them")
    parser.add_argument("--out", required=True, help="prefix of .ark .scp .utt2num_frames .utt2dur [.bad]")
    parser.add_argument("--config", default="", help="an experiment's config.yaml: its section features")
    parser.add_argument("--speed", type=float, default=1.0, help="play so fast; ids get a prefix such as sp0.9-")
    kinds = ["reverb", "noise", "music", "babble"]
    parser.add_argument("--copy", default="", choices=kinds, help="make a copy of this kind; ids end in it")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn for a copy")
    parser.add_argument("--musan", default="", help="data dir of noise, music and speech, of list_clips")
    parser.add_argument("--rirs", default="", help="data dir of impulse responses; by default they are simulated")
    parser.add_argument("--max-bad", type=int, default=0, help="unreadable utterances that may be left out")
    parser.add_argument("--no-pipes", action="store_true", help="refuse a wav.scp in which there is a command")
    args = parser.parse_args()
    import torch

    from wespeaker_lite.audio.fbank import FbankConfig
    from wespeaker_lite.corpora.augmented_copies import Copy
    from wespeaker_lite.corpora.fbank_job import FbankJob, make_fbanks

    torch.set_num_threads(1)  # jobs run side by side
    section = resolved.read(args.config).get("features", {}) if args.config else {}
    features = from_mapping(FbankConfig, section, f"{args.config}: features")
    copy = Copy(args.speed, args.copy, args.seed, args.musan, args.rirs)
    make_fbanks(FbankJob(args.data, args.out, features, copy, args.max_bad, not args.no_pipes))


if __name__ == "__main__":
    run(main)
