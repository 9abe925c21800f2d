#!/usr/bin/env bash
# The rows of RESULTS.md, each resumable; see --help.
set -euo pipefail
# shellcheck source=local/results.sh
. "$(dirname "$0")/../../local/results.sh"
result_arguments "Usage: bash $0 --corpus-dir DIR [ROW ...]
A row is a conf and a seed, such as bc_cmt_tiny_attn_kd:1; its teacher is trained first if it is not there. 'table' makes
the tables of what is there. Options go to run.sh. Without rows: all that RESULTS.md is meant to hold, the weightiest
first, then the tables (about ten hours on two cores)." "$@"

three() { printf '%s\n' "$1":{0,1,2}; }
if [ ${#rows[@]} -eq 0 ]; then
  mapfile -t rows < <(
    three bc_cmt_tiny && three bc_cmt_tiny_attn_kd && three bc_cmt_tiny_2d && three bc_cmt_tiny_embed_kd
    three bc_cmt_tiny_label_kd && three bc_cmt_tiny_all_kd && echo bc_cmt_base:0 bc_cmt_small:0 | tr ' ' '\n'
    three ecapa_c128 && three ecapa_c128_skdfe && echo ecapa_c512:0
    three resnet18 && three resnet18_skdfe && printf '%s:0\n' resnet34 ecapa_c512_skdfe resnet34_skdfe
    echo table
  )
fi

for row in "${rows[@]}"; do
  case $row in
    *:*) experiment speechocean_libri "${row%:*}" "${row#*:}" ;;
    table)
      tables speechocean_libri "Tiny:bc_cmt_tiny" "Tiny, attention KD:bc_cmt_tiny_attn_kd" "Tiny 2-D:bc_cmt_tiny_2d" \
        "Tiny, embedding KD (CAM++):bc_cmt_tiny_embed_kd" "Tiny, label KD:bc_cmt_tiny_label_kd" \
        "Tiny, all KD:bc_cmt_tiny_all_kd" "Small:bc_cmt_small" "Base:bc_cmt_base"
      (tables speechocean_libri "ECAPA c128:ecapa_c128" "ECAPA c128, SKDFE:ecapa_c128_skdfe" \
        "ECAPA c512:ecapa_c512" "ECAPA c512, SKDFE:ecapa_c512_skdfe" "ResNet18:resnet18" \
        "ResNet18, SKDFE:resnet18_skdfe" "ResNet34:resnet34" "ResNet34, SKDFE:resnet34_skdfe")
      ;;
    *) echo "$0: no row '$row'; see --help" >&2 && exit 1 ;;
  esac
done
