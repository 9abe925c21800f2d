#!/usr/bin/env bash
# Checks and edits data directories: tools/data_dir.sh validate|fix|split|combine|subset ...; see --help.
set -euo pipefail
# shellcheck source=path.sh
. "$(dirname "${BASH_SOURCE[0]}")/../path.sh"
exec python -m wespeaker_lite.bin.data_dir "$@"
