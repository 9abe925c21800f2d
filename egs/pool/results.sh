#!/usr/bin/env bash
# Trains the experiments of RESULTS.md, the rows of rows.tsv, and compares them: see --help.
set -euo pipefail
here=$(realpath "$(dirname "$0")")
. "$here/../../path.sh"
exec python -m wespeaker_lite.bin.results "$(basename "$here")" "$@"
