"""Export a trained model for devices: model.onnx, model.fp16.onnx, model_wave.onnx, and card.md with their checks.

Needs tools/install.sh --extras export.

Example:
    python -m wespeaker_lite.bin.export --model exp/mini/ecapa_c64_kd/final.pt    # into export/ beside it
"""

import argparse
from pathlib import Path

from wespeaker_lite.bin import run
from wespeaker_lite.core.errors import InputError


def main() -> None:
    """Parse the arguments and export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, type=Path, help="final.pt of the model")
    parser.add_argument("--out", type=Path, help="folder (default: export/ beside the model)")
    parser.add_argument("--experiment", type=Path, help="folder of results.json and verify.json (default: the model's)")
    parser.add_argument("--language", default="not stated", help="language of the training speakers, for the card")
    parser.add_argument("--licence", default="not stated", help="licence of the weights, for the card")
    parser.add_argument("--data", default="not stated", help="name of the training data, for the card")
    args = parser.parse_args()
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise InputError(f"{error}: install what exporting needs: tools/install.sh --extras export") from error
    from wespeaker_lite.deploy.export import About, export

    about = About(args.language, args.licence, args.data)
    folder = args.model.parent
    export(args.model, args.experiment or folder, args.out or folder / "export", about)


if __name__ == "__main__":
    run(main)
