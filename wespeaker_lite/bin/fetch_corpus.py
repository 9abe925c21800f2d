"""Download a corpus (.tar.gz), verify and unpack it. An interrupted download is resumed."""

import argparse

from wespeaker_lite.bin import run
from wespeaker_lite.corpora.download import Source, fetch_corpus


def main() -> None:
    """Parse the arguments and call `fetch_corpus`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True, help="address of the archive")
    parser.add_argument("--out", required=True, help="name for the top folder of the archive")
    parser.add_argument("--size", type=int, help="published size of the archive in bytes")
    parser.add_argument("--sha256", help="published checksum of the archive")
    parser.add_argument("--keep", default="*", help="pattern of the paths in the archive to unpack (default: all)")
    args = parser.parse_args()
    fetch_corpus(Source(args.url, args.size, args.sha256 or None), args.out, args.keep)


if __name__ == "__main__":
    run(main)
