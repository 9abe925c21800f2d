#!/usr/bin/env bash
# Stage 5: embeddings of the test sets and of the cohort, or of the sets that --sets names.
set -euo pipefail
. "$(dirname "$0")/common.sh"

device=cpu
if [ "$gpu" -gt 0 ]; then device=cuda; fi
for set_name in ${sets:-$cohort_set $test_set}; do
  dir=$exp/embeddings/$set_name
  [ -e "$data/$set_name" ] || { say "$corpus has no set $set_name"; continue; }
  if fresh "$dir/.embed.stamp" --files "$model" "$data/$set_name/.fbank.stamp"; then continue; fi
  rm -rf "$dir/split" "$dir/parts"
  python -m wespeaker_lite.bin.data_dir split "$data/$set_name" "$nj" "$dir/split" --per-utt --at-most
  jobs=$(find "$dir/split" -mindepth 1 -maxdepth 1 -type d | wc -l)
  say "embeddings of $set_name by $jobs jobs, logs in $dir/log/extract.*.log"
  $cmd --gpu "$gpu" "JOB=1:$jobs" "$dir/log/extract.JOB.log" \
    python -m wespeaker_lite.bin.extract --model "$model" --data "$dir/split/JOB" --out "$dir/parts/xvector.JOB" \
    --device "$device"
  python -m wespeaker_lite.bin.merge_arks --out "$dir/xvector" "$dir"/parts/xvector.*.scp
  rm -rf "$dir/split" "$dir/parts"
  stamp "$dir/xvector.scp" "$dir/xvector.ark"
done
