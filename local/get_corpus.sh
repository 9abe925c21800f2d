#!/usr/bin/env bash
# Stage 0: get the corpus, from its public source or by making it; a folder that the user names is only looked at.
set -euo pipefail
. "$(dirname "$0")/common.sh"

if fresh "$data/.get.stamp" --words "$corpus_dir" "$corpus_options" --files "egs/$corpus/prepare.sh" "egs/$corpus/corpus.conf"; then exit; fi
"egs/$corpus/prepare.sh" "${corpus_arguments[@]}" get "$corpus_dir"
stamp "$corpus_dir"
