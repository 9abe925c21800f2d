#!/usr/bin/env bash
# Stage 7: the report: DET curves, histograms of scores, and intervals by bootstrap over speakers.
set -euo pipefail
. "$(dirname "$0")/common.sh"

if fresh "$exp/.report.stamp" --files "$exp/results.json" "$data/$test_set/utt2spk"; then exit; fi
python -m wespeaker_lite.bin.report --out "$exp" --utt2spk "$data/$test_set/utt2spk"
stamp "$exp/report/report.md"
