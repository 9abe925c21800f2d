#!/usr/bin/env bash
# Stage 5: extracts the embeddings of the test set and of the cohort, or of the sets that --sets names.
set -euo pipefail
. "$(dirname "$0")/common.sh"

lock_for_reading
device=cpu
if [ "$gpu" -gt 0 ]; then device=cuda; fi
options=()
if $trained; then options=(--config "$exp/config.yaml"); fi
read -rd "" -a set_names <<< "${sets:-$cohort_set $test_set}" || true # read fails because there is no zero byte
for set_name in "${set_names[@]}"; do
  dir=$exp/embeddings/$set_name
  if [ "$set_name" = "$cohort_set" ] && [ -z "$sets" ] && [ -e "$data/$test_set" ] && [ ! -e "$data/$set_name" ]; then
    say "$corpus has no $set_name, so there is no cohort"
    continue
  fi
  current=()
  check_features "$set_name"
  if fresh "$dir/.embed.stamp" --files "$model" "$fbanks/$set_name/feats.sum" --words "$ROOT" \
    --config "$exp/config.yaml" --sections "${training_sections[@]}" --current "${current[@]}"; then continue; fi
  rm -rf "$dir/parts"
  split_for_jobs "$fbanks/$set_name" "$dir/split"
  say "embeddings of $set_name by $jobs jobs, logs in $dir/log/extract.*.log"
  run_jobs --gpu "$((gpu > 0))" "JOB=1:$jobs" "$dir/log/extract.JOB.log" \
    python -m wespeaker_lite.bin.extract --model "$model" --data "$dir/split/JOB" --out "$dir/parts/xvector.JOB" \
    --device "$device" "${options[@]}"
  wait_for_outputs "$dir/parts/xvector.JOB.scp"
  python -m wespeaker_lite.bin.merge_arks --out "$dir/xvector" "${job_outputs[@]}" --keys-of "$fbanks/$set_name/feats.scp"
  rm -rf "$dir/split" "$dir/parts"
  stamp "$dir/xvector.scp" "$dir/xvector.ark"
done
