#!/usr/bin/env bash
# The rows of RESULTS.md, each resumable; see --help.
set -euo pipefail
# shellcheck source=local/results.sh
. "$(dirname "$0")/../../local/results.sh"
result_arguments "Usage: bash $0 --corpus-dir DIR [ROW ...]
Rows: teacher plain_0 plain_1 plain_2 label_0 ... embed_2 (the number is the seed); 'table' makes the tables of what is
there. 'kd' runs conf/kd/*.yaml and plain, label, embedding and self-teacher KD with two seeds each, then their table
(docs/kd.md). Options go to run.sh. Without rows: all but kd, one after the other (about 2.5 hours on two cores)." "$@"
[ ${#rows[@]} -gt 0 ] || rows=(teacher {plain,label,embed}_{0,1,2} table)

# The students' schedule is shorter than that of overrides.yaml, which the teacher follows: there are nine of them.
short=(--set train.epochs=6 --set train.learning_rate.warmup_epochs=2.0 --set train.margin.end_epoch=3.0)
student() { experiment speechocean762 "$@" "${short[@]}"; } # CONF SEED [OPTION ...]

for row in "${rows[@]}"; do
  case $row in
    teacher) experiment speechocean762 ecapa_c512 0 ;;
    plain_*) student ecapa_c128 "${row#*_}" ;;
    label_*) student ecapa_c128_label_kd "${row#*_}" --set distill.source=utterance ;;
    embed_*) student ecapa_c128_embed_kd "${row#*_}" --set distill.source=utterance ;;
    kd) kd speechocean762 "${short[@]}" ;;
    table)
      tables speechocean762 "ECAPA c128, plain:ecapa_c128" "ECAPA c128, label KD:ecapa_c128_label_kd" \
        "ECAPA c128, embedding KD:ecapa_c128_embed_kd" "ECAPA c512, teacher:ecapa_c512"
      ;;
    *) echo "$0: no row '$row'; see --help" >&2 && exit 1 ;;
  esac
done
