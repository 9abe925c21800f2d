"""Check whether the KD terms of a student fit a teacher, before the teacher is trained."""

import argparse
from pathlib import Path

from wespeaker_lite.bin import run
from wespeaker_lite.distill.compatibility import check_compatibility


def main() -> None:
    """Parse the arguments and call `check_compatibility`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--student", required=True, type=Path, metavar="YAML", help="resolved config of the student")
    parser.add_argument("--teacher", required=True, type=Path, metavar="YAML", help="resolved config of the teacher")
    options = parser.parse_args()
    check_compatibility(options.student, options.teacher)


if __name__ == "__main__":
    run(main)
