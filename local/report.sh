#!/usr/bin/env bash
# Stage 7: the report, as report.md and as one report.html: DET curves, histograms of scores, intervals by bootstrap over
# speakers, training curves. Where attention maps were distilled, also those of the teacher, of this student, and of the
# student that was trained alike without KD.
set -euo pipefail
. "$(dirname "$0")/common.sh"

[ -e "$exp/results.json" ] || die "$exp/results.json is not there: run stage 6 first"
inputs=("$exp/results.json" "$data/$test_set/utt2spk")
[ ! -e "$exp/metrics.jsonl" ] || inputs+=("$exp/metrics.jsonl")
systems=() current=("$exp/.score.stamp") maps='' terms=$(setting distill.terms)
# Pairs that do not go by stages are not what the picture shows, which are the last blocks of stages.
attention="'name': 'attention'[^}]*'pairs': '(stage|blocks)'"
if $trained && [[ $terms =~ $attention ]]; then
  check_asked_for
  find_teachers
  teacher=$(teacher_file "${teachers[0]}")
  plain=$(python -m wespeaker_lite.bin.draw_attention --without-kd "$exp")
  [ -n "$plain" ] || say "nothing in $exps was trained as $name, but without KD: such attention maps are not shown"
  if [ "$plain/final.pt" = "$teacher" ]; then plain=''; fi # a network that teaches its own kind
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
