#!/usr/bin/env bash
# Stage 1: data dirs and trials.
set -euo pipefail
. "$(dirname "$0")/common.sh"

[ -e "$data/$test_set/wav.scp" ] && [ -e "$data/made_from" ] || rm -f "$data/.lists.stamp"
if fresh "$data/.lists.stamp" --files "$data/.get.stamp" --words "$(made_from)" "$corpus_stamp" "$corpus_dir"; then exit; fi
rm -f "$data/made_from"
"egs/$corpus/prepare.sh" "${corpus_arguments[@]}" lists "$corpus_dir" "$data"
for set_name in $(made_sets); do
  python -m wespeaker_lite.bin.data_dir validate "$data/$set_name" --no-feats
  python -m wespeaker_lite.bin.list_audio "$data/$set_name" "${pipes[@]}"
done
# Not the data dirs, from which stage 2 drops what --max-bad allows it to; nor the lists' lengths, since users take such
# trials out.
leave_made_from "$data/made_from"
stamp "$data/trials" "$data/made_from"
