#!/usr/bin/env bash
# Stage 8: export: files for onnxruntime and for sherpa-onnx, checked against the model, and a card that says how exact.
set -euo pipefail
. "$(dirname "$0")/common.sh"

inputs=("$model")
for file in results.json verify.json; do
  [ ! -e "$exp/$file" ] || inputs+=("$exp/$file")
done
words=("$place" "$(cat requirements-export.txt)")
if fresh "$exp/.export.stamp" --files "${inputs[@]}" --words "${words[@]}"; then exit; fi
missing=$(missing_for_export) || die "$missing"
python -m wespeaker_lite.bin.export --model "$model" --experiment "$exp" --out "$exp/export" --data "$place"
stamp "$exp"/export/{model.onnx,model.fp16.onnx,model_wave.onnx,card.md}
