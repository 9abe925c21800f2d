#!/usr/bin/env bash
# Stage 4: trains the student. After a stop it resumes from the last checkpoint. Pretrained weights are imported instead.
set -euo pipefail
. "$(dirname "$0")/common.sh"
. local/beforehand.sh

if ! $trained; then say "a trained model is given, nothing to train"; exit; fi
log=$exp/log/train.log
weights=$(setting pretrained)
if [ -n "$weights" ]; then
  inputs=()
  if [ -f "$weights" ]; then inputs=(--files "$weights"); fi
  if fresh "$exp/.train.stamp" "${inputs[@]}" --config "$exp/config.yaml" --sections pretrained features crop model; then exit; fi
  run_jobs "$log" python -m wespeaker_lite.bin.import_teacher --config "$exp/config.yaml" --out "$exp"
  wait_for_outputs "$exp/final.pt"
  stamp "$exp/final.pt"
  exit
fi

lock_for_reading
train_data=$fbanks/$(training_set)
[ -e "$data/$train_set/wav.scp" ] || [ -e "$train_data/.fbank.stamp" ] ||
  die "$corpus has no training set ($train_data); evaluate a trained model with --model FILE"
inputs=("$train_data/feats.sum" "$train_data/utt2spk")
if [ -e "$train_data/spk2unlabelled" ]; then inputs+=("$train_data/spk2unlabelled"); fi
current=() options=()
check_features "$(training_set)"
if uses_noise; then
  inputs+=("$fbanks/musan/feats.sum")
  check_features musan
  options+=(--noise "$fbanks/musan")
fi
embeddings=$(setting distill.embeddings)
if [ -n "$embeddings" ]; then
  find_arks "$embeddings"
  inputs+=("$embeddings" "${arks[@]}")
fi
find_teachers
for teacher in "${teachers[@]}"; do
  teacher_exp=$(teacher_folder "$teacher")
  if is_conf "$teacher"; then
    inputs+=("$teacher_exp/.train.stamp")
    current+=("$teacher_exp/.train.stamp")
  else
    inputs+=("$teacher")
  fi
  options+=(--teacher "$(teacher_file "$teacher")")
  if [ "$(setting distill.source)" = utterance ]; then
    inputs+=("$teacher_exp/embeddings/$(training_set)/.embed.stamp")
    current+=("$teacher_exp/embeddings/$(training_set)/.embed.stamp")
    options+=(--teacher-embeddings "$teacher_exp/embeddings/$(training_set)/xvector.scp")
  fi
done
start=$(starting_model)
check_asked_for
if [ -n "$start" ]; then inputs+=("$start") options+=(--start-from "$start"); fi
if fresh "$exp/.train.stamp" --files "${inputs[@]}" --config "$exp/config.yaml" \
  --sections "${training_sections[@]}" --current "${current[@]}"; then exit; fi
check_settings training
program=(python)
on_nodes=()
processes=$(processes_of_node)
if [ "$((nodes * processes))" -gt 1 ]; then program=(bash tools/launch.sh "$nodes" "$processes"); fi
if [ "$nodes" -gt 1 ]; then on_nodes=(--nodes "$nodes"); fi
say "training $name; everything is in $exp/train.log"
follow "$log" 'epoch .*done|resuming|stopping;|set aside|are of another run|is trained again' \
  run_jobs --gpu "$gpu" "${on_nodes[@]}" "$log" "${program[@]}" -m wespeaker_lite.bin.train --config "$exp/config.yaml" \
  --data "$train_data" --out "$exp" "${options[@]}" --inputs "${inputs[@]}"
wait_for_outputs "$exp/final.pt"
stamp "$exp/final.pt"
