#!/usr/bin/env bash
# Serves a page that compares two recordings in the browser with the exported model of an experiment.
set -euo pipefail

ORT=onnxruntime-web@1.30.0
usage="Usage: $0 EXP_DIR [SITE_DIR [PORT]]
 e.g.: $0 exp/mini/bc_cmt_tiny
Copies the page, EXP_DIR/export/model_wave.onnx, the verify.json beside it and onnxruntime-web (from npm) to SITE_DIR
(default: EXP_DIR/export/demo), and serves that folder on this machine. With PORT 0 (default: 8000) it only makes it."
if [ $# -lt 1 ] || [ $# -gt 3 ] || [ "$1" = --help ]; then
  echo "$usage" >&2
  exit 1
fi
exp=$1 site=${2:-$1/export/demo} port=${3:-8000} page=$(dirname "$0")/index.html

die() { echo "$0: $*" >&2 && exit 1; }
[ -e "$exp/export/model_wave.onnx" ] || die "$exp/export/model_wave.onnx is missing: run stage 8 of this experiment first"
command -v npm > /dev/null || die "npm is missing: install Node.js; npm downloads onnxruntime-web"

mkdir -p "$site"
if [ ! -e "$site/ort.wasm.min.js" ]; then
  fetched=$(mktemp -d)
  trap 'rm -rf "$fetched"' EXIT
  npm pack --silent --pack-destination "$fetched" "$ORT" > /dev/null || die "npm could not fetch $ORT"
  tar -xzf "$fetched"/*.tgz -C "$fetched"
  cp "$fetched"/package/dist/ort-wasm-simd-threaded.{mjs,wasm} "$site/"
  cp "$fetched/package/dist/ort.wasm.min.js" "$site/" # last: if it exists, so do the others
fi
cp "$page" "$exp/export/model_wave.onnx" "$site/"
rm -f "$site/verify.json"
if [ -e "$exp/export/verify.json" ]; then cp "$exp/export/verify.json" "$site/"; fi # which the export has checked
[ "$port" != 0 ] || exit 0
exec python3 -m http.server --bind 127.0.0.1 --directory "$site" "$port"
