#!/usr/bin/env bash
# Stage 1: makes data directories and trial lists.
set -euo pipefail
. "$(dirname "$0")/common.sh"

if fresh "$data/.lists.stamp" --files "$data/.get.stamp" --words "$(made_from)" "$corpus_stamp" "$corpus_dir"; then exit; fi
rm -f "$data/made_from" "$data"/*/left_out
"egs/$corpus/prepare.sh" "${corpus_arguments[@]}" lists "$corpus_dir" "$data"
tables=()
for set_name in $(made_sets); do
  python -m wespeaker_lite.bin.data_dir validate "$data/$set_name" --no-feats
  python -m wespeaker_lite.bin.list_audio "$data/$set_name" "${pipes[@]}"
  find_files "$data/$set_name" -maxdepth 1 -type f ! -name '.*' ! -name 'feat*' ! -name utt2num_frames ! -name utt2dur
  tables+=("${files[@]}")
done
write_made_from "$data/made_from"
# Users may remove trials, for example those of utterances that --max-bad left out.
stamp "${tables[@]}" "$data/made_from" --editable "$data"/trials/*
