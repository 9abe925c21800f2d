"""Make embeddings of recordings with a trained model, as a Kaldi ark with its scp, or as .npz.

Example:
    python -m wespeaker_lite.bin.embed --model final.pt --out xvector a.wav b.flac      # xvector.ark, xvector.scp
    python -m wespeaker_lite.bin.embed --model final.pt --out x.npz wav.scp             # ids and paths or commands
    python -m wespeaker_lite.bin.embed --model final.pt --out x.npz files.txt           # a path on each line
"""

import argparse

from wespeaker_lite.bin import run


def main() -> None:
    """Parse the arguments and call `embed_all`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="final.pt or an exported .onnx (default: the model of the package)")
    parser.add_argument(
        "sources", nargs="+", metavar="SOURCE", help="recordings, one wav.scp, or one list (.txt, .list)"
    )
    parser.add_argument(
        "--out", required=True, help="prefix of the .ark and .scp to write, or the name of an .npz file"
    )
    parser.add_argument(
        "--max-bad",
        type=int,
        default=0,
        help="most unreadable recordings to leave out before it is an error (default: 0)",
    )
    parser.add_argument("--no-pipes", action="store_true", help="refuse a wav.scp that contains a command")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default: 1)")
    args = parser.parse_args()
    import torch

    from wespeaker_lite.deploy.embedding_job import embed_all, list_sources
    from wespeaker_lite.deploy.speaker_model import SpeakerModel

    torch.set_num_threads(args.threads)
    sources = list_sources(args.sources, not args.no_pipes)
    embed_all(SpeakerModel.load(args.model), sources, args.out, args.max_bad)


if __name__ == "__main__":
    run(main)
