r"""Write a noisy copy of a test set, with its trials: a corpus to evaluate trained models on.

    python -m wespeaker_lite.bin.copy_audio --data data/speechocean762/test --trials data/speechocean762/trials/* \
        --copy noise --musan data/speechocean762/musan --out noisy
    bash run.sh --corpus own --corpus-dir noisy --model exp/speechocean762/ecapa_c128/final.pt
"""

import argparse
from pathlib import Path

from wespeaker_lite.bin import run


def main() -> None:
    """Parse the arguments and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="data dir with wav.scp and utt2spk, and segments if it has them")
    parser.add_argument("--trials", nargs="*", default=[], help="trial lists, copied to OUT with the ids of the copy")
    parser.add_argument("--copy", required=True, choices=["reverb", "noise", "music", "babble"])
    parser.add_argument(
        "--seed", type=int, default=1, help="seed of the random choices; it should differ from that of training"
    )
    parser.add_argument("--musan", default="", help="data dir of noise, music and speech, made by list_clips")
    parser.add_argument("--rirs", default="", help="data dir of impulse responses; by default they are simulated")
    parser.add_argument("--out", required=True, type=Path, help="folder to write: OUT/test, OUT/trials*")
    args = parser.parse_args()
    from wespeaker_lite.core.files import write_lines
    from wespeaker_lite.corpora.augmented_copies import Copy, write_copy

    write_copy(args.data, args.out / "test", Copy(1.0, args.copy, args.seed, args.musan, args.rirs))
    for trials in args.trials:
        write_lines(args.out / Path(trials).name, [Path(trials).read_bytes()])


if __name__ == "__main__":
    run(main)
