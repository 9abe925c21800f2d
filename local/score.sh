#!/usr/bin/env bash
# Stage 6: score the trials in the ways that the config's section scoring names, and measure: results.json and a table here.
set -euo pipefail
. "$(dirname "$0")/common.sh"

embeddings=$exp/embeddings
inputs=("$embeddings/$test_set/.embed.stamp" "$fbanks/$test_set/utt2num_frames")
current=("$embeddings/$test_set/.embed.stamp" "$data/.lists.stamp")
options=(--embeddings "$embeddings/$test_set/xvector.scp" --frames "$fbanks/$test_set/utt2num_frames")
find_lists
options+=(--trials "${lists[@]}")
inputs+=("${lists[@]}")
read -rd "" -a of_mean <<< "$mean_trials" || true # which ends without a zero byte
if [ "${#of_mean[@]}" -gt 1 ]; then options+=(--mean "${of_mean[@]}") inputs+=("$data/test_sets"); fi
if [ -n "$cohort_set" ] && [ -e "$fbanks/$cohort_set/feats.scp" ]; then
  options+=(--cohort "$embeddings/$cohort_set/xvector.scp" --cohort-utt2spk "$fbanks/$cohort_set/utt2spk")
  options+=(--cohort-frames "$fbanks/$cohort_set/utt2num_frames")
  inputs+=("$embeddings/$cohort_set/.embed.stamp" "$fbanks/$cohort_set/utt2spk" "$fbanks/$cohort_set/utt2num_frames")
  current+=("$embeddings/$cohort_set/.embed.stamp")
  # A model that was trained before there was calibration has no such key in its config.
  if list=$(setting scoring.calibration.list 2> /dev/null) && [ -n "$list" ]; then inputs+=("$list"); fi
else
  options+=(--scorings cosine)
  say "$corpus has no cohort: scores are plain cosines"
fi
sets_used=("$test_set")
if [ -n "$cohort_set" ]; then sets_used+=("$cohort_set"); fi
if $trained; then
  sets_used+=("$(training_set)")
  if uses_noise; then sets_used+=(musan); fi
fi
for set_name in "${sets_used[@]}"; do
  left_out=$fbanks/$set_name/left_out
  if [ -e "$left_out" ]; then options+=(--left-out "$left_out") inputs+=("$left_out"); fi
done
if fresh "$exp/.score.stamp" --files "${inputs[@]}" --config "$exp/config.yaml" --sections scoring --words "$mean_trials" \
  --current "${current[@]}"; then exit; fi
python -m wespeaker_lite.bin.cost --config "$exp/config.yaml" > "$exp/cost.json"
rm -rf "$exp/scores" # those of another config; fusion would learn from them
python -m wespeaker_lite.bin.score "${options[@]}" --config "$exp/config.yaml" --cost "$exp/cost.json" \
  --model "$model" --out "$exp"
stamp "$exp/results.json" "$exp/verify.json" "$exp"/scores/*
