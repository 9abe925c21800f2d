"""Extract an embedding of every utterance of a data dir."""

import argparse
from pathlib import Path

from wespeaker_lite.bin import run


def main() -> None:
    """Parse the arguments and call `extract`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="final.pt of the model")
    parser.add_argument("--data", required=True, help="data dir with feats.scp and utt2num_frames")
    parser.add_argument("--out", required=True, help="prefix of the .ark and .scp to write")
    parser.add_argument(
        "--config", default="", help="resolved config; a model that was trained with another one is refused"
    )
    parser.add_argument(
        "--batch-frames",
        type=int,
        default=6000,
        help="most frames in a batch, including padding (default: %(default)s)",
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--threads", type=int, default=1, help="threads of torch (default: 1, because jobs run in parallel)"
    )
    args = parser.parse_args()
    import torch

    from wespeaker_lite.extraction.extract import Batching, extract

    torch.set_num_threads(args.threads)
    extract(args.model, Path(args.data), args.out, Batching(frames=args.batch_frames), args.device, args.config)


if __name__ == "__main__":
    run(main)
