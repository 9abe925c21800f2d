"""Export a trained model for devices: .onnx files, and card.md with their sizes, checks and error rates.

Needs tools/install.sh --extras export.

Example:
    python -m wespeaker_lite.bin.export --model exp/mini/ecapa_c64_kd/final.pt    # into exp/mini/ecapa_c64_kd/export/
"""

import argparse
from pathlib import Path

from wespeaker_lite.bin import run
from wespeaker_lite.core.errors import InputError


def main() -> None:
    """Parse the arguments and call `export`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="final.pt of the model")
    parser.add_argument("--out", type=Path, help="folder (default: export/ in the folder of the model)")
    parser.add_argument("--experiment", type=Path, help="folder of results.json and verify.json (default: the model's)")
    parser.add_argument("--language", default="not stated", help="language of the training speakers, for the card")
    parser.add_argument("--licence", default="not stated", help="licence of the weights, for the card")
    parser.add_argument("--data", default="not stated", help="name of the training data, for the card")
    parser.add_argument("--test-data", type=Path, metavar="DIR", help="data dir with the audio of --trials")
    parser.add_argument(
        "--trials", nargs="+", default=[], type=Path, metavar="LIST", help="lists on which each file's EER is measured"
    )
    parser.add_argument(
        "--eer-utterances", type=int, default=5000, metavar="N", help="leave out lists of more (default: 5000)"
    )
    parser.add_argument(
        "--int8", type=Path, metavar="DIR", help="also write model.int8.onnx, calibrated on fbanks of this training set"
    )
    parser.add_argument("--no-pipes", action="store_true", help="refuse a wav.scp in which there is a command")
    args = parser.parse_args()
    if bool(args.test_data) != bool(args.trials):
        raise InputError("--test-data and --trials go together")
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise InputError(f"{error}: install what exporting needs: tools/install.sh --extras export") from error
    from wespeaker_lite.deploy.error_rates import EvaluationSet
    from wespeaker_lite.deploy.export import About, export

    about = About(args.language, args.licence, args.data)
    test = EvaluationSet(args.test_data, args.trials, args.eer_utterances, not args.no_pipes) if args.trials else None
    folder = args.model.parent
    export(args.model, args.experiment or folder, args.out or folder / "export", about, test, args.int8)


if __name__ == "__main__":
    run(main)
