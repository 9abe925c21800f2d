#!/usr/bin/env bash
# Stage 6: scores the trials by the scorings of the config, computes the metrics, writes results.json and prints a table.
set -euo pipefail
. "$(dirname "$0")/common.sh"

embeddings=$exp/embeddings
inputs=("$embeddings/$test_set/.embed.stamp" "$fbanks/$test_set/utt2num_frames")
current=("$embeddings/$test_set/.embed.stamp" "$data/.lists.stamp")
options=(--embeddings "$embeddings/$test_set/xvector.scp" --frames "$fbanks/$test_set/utt2num_frames")
find_lists
options+=(--trials "${lists[@]}")
inputs+=("${lists[@]}")
read -rd "" -a of_mean <<< "$mean_trials" || true # read fails because there is no zero byte
if [ "${#of_mean[@]}" -gt 1 ]; then options+=(--mean "${of_mean[@]}") inputs+=("$data/test_sets"); fi
if [ -n "$cohort_set" ] && [ -e "$fbanks/$cohort_set/feats.scp" ]; then
  options+=(--cohort "$embeddings/$cohort_set/xvector.scp" --cohort-utt2spk "$fbanks/$cohort_set/utt2spk")
  options+=(--cohort-frames "$fbanks/$cohort_set/utt2num_frames")
  inputs+=("$embeddings/$cohort_set/.embed.stamp" "$fbanks/$cohort_set/utt2spk" "$fbanks/$cohort_set/utt2num_frames")
  current+=("$embeddings/$cohort_set/.embed.stamp")
  unlabelled=$fbanks/$cohort_set/spk2unlabelled
  if [ -e "$unlabelled" ]; then options+=(--cohort-unlabelled "$unlabelled") inputs+=("$unlabelled"); fi
  # The config of an older model has no section for calibration.
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
rm -rf "$exp/scores" # scores of an earlier config: fusion would use them
python -m wespeaker_lite.bin.score "${options[@]}" --config "$exp/config.yaml" --cost "$exp/cost.json" \
  --model "$model" --out "$exp"
stamp "$exp/results.json" "$exp/verify.json" "$exp"/scores/*
