#!/usr/bin/env bash
# The rows of RESULTS.md: `bash egs/speechocean762/results.sh --corpus-dir DIR [ROW ...]`, each resumable, then the table.
# Rows: teacher plain_0 plain_1 plain_2 label_0 ... embed_2 (the number is the seed); `table` alone makes the table of what
# is there. Options go to run.sh. Without rows: all of them, one after the other (about 2.5 hours on two cores).
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
options=() rows=()
while [ $# -gt 0 ]; do
  case $1 in
    --*) options+=("$1" "${2?$1 needs a value}") && shift 2 ;;
    *) rows+=("$1") && shift ;;
  esac
done
[ ${#rows[@]} -gt 0 ] || rows=(teacher {plain,label,embed}_{0,1,2} table)

# The students' schedule is shorter than that of overrides.yaml, which the teacher follows: there are nine of them.
short=(--set train.epochs=6 --set train.learning_rate.warmup_epochs=2.0 --set train.margin.end_epoch=3.0)
student() { # CONF SEED [OPTION ...]
  local conf=$1 seed=$2
  shift 2
  bash "$root/run.sh" --corpus speechocean762 --config "conf/$conf.yaml" --seed "$seed" "${options[@]}" "${short[@]}" "$@"
}

for row in "${rows[@]}"; do
  case $row in
    teacher) bash "$root/run.sh" --corpus speechocean762 --config conf/ecapa_c512.yaml "${options[@]}" ;;
    plain_*) student ecapa_c128 "${row#*_}" ;;
    label_*) student ecapa_c128_label_kd "${row#*_}" --set distill.source=utterance ;;
    embed_*) student ecapa_c128_embed_kd "${row#*_}" --set distill.source=utterance ;;
    table)
      cd "$root" && . ./path.sh
      exp=exp/speechocean762
      systems=(--row "ECAPA c512, teacher=$exp/ecapa_c512")
      for system in "plain:ecapa_c128" "label KD:ecapa_c128_label_kd" "embedding KD:ecapa_c128_embed_kd"; do
        folders=$(find "$exp" -maxdepth 2 -path "$exp/${system#*:}*/results.json" -printf '%h\n' | sort |
          grep -xE "$exp/${system#*:}(_s[0-9]+)?" | paste -sd,) || continue
        systems+=(--row "ECAPA c128, ${system%%:*}=$folders")
      done
      for scoring in cosine asnorm; do
        python -m wespeaker_lite.bin.compare --utt2spk data/speechocean762/test/utt2spk --trials trials_O trials_H \
          --scoring "$scoring" "${systems[@]}" --baseline "ECAPA c128, plain"
        echo
      done
      ;;
    *) echo "$0: no row '$row'" >&2 && exit 1 ;;
  esac
done
