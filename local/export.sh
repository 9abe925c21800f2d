#!/usr/bin/env bash
# Stage 8: exports ONNX files for onnxruntime and sherpa-onnx, compares their output with the model's, and writes a card.
set -euo pipefail
. "$(dirname "$0")/common.sh"

inputs=("$model")
for file in results.json verify.json; do
  [ ! -e "$exp/$file" ] || inputs+=("$exp/$file")
done
options=()
find_existing_lists
if [ -e "$data/$test_set/wav.scp" ] && [ "${#lists[@]}" -gt 0 ]; then
  inputs+=("${lists[@]}" "$data/$test_set/audio.list")
  options=(--test-data "$data/$test_set" --trials "${lists[@]}" "${pipes[@]}")
fi
words=("$place" "$(cat requirements-export.txt)")
if fresh "$exp/.export.stamp" --files "${inputs[@]}" --words "${words[@]}"; then exit; fi
missing=$(missing_for_export) || die "$missing"
python -m wespeaker_lite.bin.export --model "$model" --experiment "$exp" --out "$exp/export" --data "$place" "${options[@]}"
stamp "$exp"/export/{model.onnx,model.fp16.onnx,model.w8.onnx,model_wave.onnx,card.md}
