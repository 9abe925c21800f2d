"""Download a corpus (.tar.gz), check it, and unpack it; run again after a cut, it resumes where it was."""

import argparse

from wespeaker_lite.bin import run
from wespeaker_lite.corpora.download import Source, fetch_corpus


def main() -> None:
    """Parse the arguments and call `fetch_corpus`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--out", required=True, help="the folder that the archive's one folder becomes")
    parser.add_argument("--size", type=int, help="bytes of the archive, where published")
    parser.add_argument("--sha256", help="of the archive, where published")
    parser.add_argument("--keep", default="*", help="unpack only files whose path in the archive fits this pattern")
    args = parser.parse_args()
    fetch_corpus(Source(args.url, args.size, args.sha256 or None), args.out, args.keep)


if __name__ == "__main__":
    run(main)
