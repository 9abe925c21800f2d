"""Print the reference of all config keys, docs/configuration.md.

Example:
    python -m wespeaker_lite.bin.describe_config > docs/configuration.md
"""

import argparse

from wespeaker_lite.bin import run
from wespeaker_lite.recipe.describe import describe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    print(describe(), end="")


if __name__ == "__main__":
    run(main)
