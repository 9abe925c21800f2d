"""Import weights that were trained elsewhere (ours, wespeaker's, 3D-Speaker's CAM++) as an experiment's final.pt."""

import argparse
from pathlib import Path

from wespeaker_lite.bin import run


def main() -> None:
    """Parse the arguments and call `import_weights`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", required=True, help="resolved config, whose `pretrained` names the weights")
    parser.add_argument("--out", required=True, help="folder of the experiment to write")
    args = parser.parse_args()
    from wespeaker_lite.recipe.pretrained import import_weights

    import_weights(Path(args.config), Path(args.out))


if __name__ == "__main__":
    run(main)
