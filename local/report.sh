#!/usr/bin/env bash
# Stage 7: writes the report as report.md and as one report.html: DET curves, histograms of scores, intervals by bootstrap
# over speakers, training curves. Where attention maps were distilled, the report also shows those of the teacher, of this
# student, and of a student with the same config but without KD.
set -euo pipefail
. "$(dirname "$0")/common.sh"

[ -e "$exp/results.json" ] || die "$exp/results.json is missing: run stage 6 first"
inputs=("$exp/results.json" "$data/$test_set/utt2spk")
[ ! -e "$exp/metrics.jsonl" ] || inputs+=("$exp/metrics.jsonl")
systems=() current=("$exp/.score.stamp") maps='' terms=$(setting distill.terms)
# The picture shows the last block of each stage. So it does not fit pairs of blocks that do not follow the stages.
attention="'name': 'attention'[^}]*'pairs': '(stage|blocks)'"
if $trained && [[ $terms =~ $attention ]]; then
  check_asked_for
  find_teachers
  teacher=$(teacher_file "${teachers[0]}")
  plain=$(python -m wespeaker_lite.bin.draw_attention --without-kd "$exp")
  [ -n "$plain" ] || say "the attention maps without KD are not shown: no experiment in $exps is $name without KD"
  if [ "$plain/final.pt" = "$teacher" ]; then plain=''; fi # teacher and student are the same network
  for weights in "$teacher" ${plain:+"$plain/final.pt"} "$exp/final.pt"; do
    systems+=(--system "$(basename "$(dirname "$weights")")=$weights")
    inputs+=("$weights")
  done
  check_features "$test_set"
  inputs+=("$fbanks/$test_set/feats.sum")
  maps=$exp/report/attention
fi
sections=("${training_sections[@]}" runtime scoring) # the report shows them
if fresh "$exp/.report.stamp" --files "${inputs[@]}" --config "$exp/config.yaml" --sections "${sections[@]}" \
  --current "${current[@]}"; then exit; fi
rm -f "$exp"/report/attention.{png,json}
if [ -n "$maps" ]; then
  python -m wespeaker_lite.bin.draw_attention "${systems[@]}" --data "$fbanks/$test_set" --out "$maps.png"
fi
python -m wespeaker_lite.bin.report --out "$exp" --utt2spk "$data/$test_set/utt2spk" ${maps:+--attention "$maps.json"}
pictures=("$exp"/report/*.png)
[ -e "${pictures[0]}" ] || pictures=()
stamp "$exp/report/report.md" "$exp/report/report.html" ${maps:+"$maps.json"} "${pictures[@]}"
