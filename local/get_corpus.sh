#!/usr/bin/env bash
# Stage 0: downloads or simulates the corpus. A folder that the user names is only checked.
set -euo pipefail
. "$(dirname "$0")/common.sh"

if fresh "$data/.get.stamp" --words "$(made_from)" --files "egs/$corpus/prepare.sh" "egs/$corpus/corpus.conf"; then exit; fi
rm -f "$data/.got_from"
"egs/$corpus/prepare.sh" "${corpus_arguments[@]}" get "$corpus_dir"
write_made_from "$data/.got_from"
stamp "$corpus_dir" "$data/.got_from"
