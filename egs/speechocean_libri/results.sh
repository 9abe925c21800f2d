#!/usr/bin/env bash
# The rows of RESULTS.md, each resumable; see --help.
set -euo pipefail
# shellcheck source=local/results.sh
. "$(dirname "$0")/../../local/results.sh"
result_arguments "Usage: bash $0 --corpus-dir DIR [ROW ...]
A row is a conf and a seed, such as bc_cmt_tiny_attn_kd:1; its teacher is trained first if it is not there. 'table' makes
the tables of what is there. Options go to run.sh. Without rows: all that RESULTS.md is meant to hold, the weightiest
first, then the tables (about ten hours on two cores)." "$@"

# Tries: rows such as ecapa_c128_skdfe_feature:0, which are a conf with something changed.
declare -A tries=(
  [ecapa_c128_skdfe_feature]="distill.terms=[{name: self_teacher, alpha: 0.0}]"
  [ecapa_c128_skdfe_label]="distill.terms=[{name: self_teacher, beta: 0.0}]"
  [ecapa_c128_skdfe_ramp]="distill.terms=[{name: self_teacher, ramp_epochs: 8.0}]"
  [ecapa_c128_skdfe_weak]="distill.terms=[{name: self_teacher, alpha: 0.2}]"
  [bc_cmt_tiny_attn_kd_campplus]="distill.teacher=conf/bc_cmt_base_campplus_kd.yaml"
)

row() { # CONF SEED
  local suffix=''
  if [ -z "${tries[$1]-}" ]; then
    experiment speechocean_libri "$1" "$2"
  else
    [ "$2" = 0 ] || suffix=_s$2
    experiment speechocean_libri "${1%_*}" "$2" --name "$1$suffix" --set "${tries[$1]}"
  fi
}

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
    *:*) row "${row%:*}" "${row#*:}" ;;
    table)
      tables speechocean_libri "Tiny:bc_cmt_tiny" "Tiny, attention KD:bc_cmt_tiny_attn_kd" "Tiny 2-D:bc_cmt_tiny_2d" \
        "Tiny, embedding KD (CAM++):bc_cmt_tiny_embed_kd" "Tiny, label KD:bc_cmt_tiny_label_kd" \
        "Tiny, all KD:bc_cmt_tiny_all_kd" "Tiny, attention KD from the Base of CAM++:bc_cmt_tiny_attn_kd_campplus" \
        "Base, embedding KD (CAM++):bc_cmt_base_campplus_kd" "Small:bc_cmt_small" "Base:bc_cmt_base"
      (tables speechocean_libri "ECAPA c128:ecapa_c128" "ECAPA c128, SKDFE:ecapa_c128_skdfe" \
        "ECAPA c128, SKDFE, feature level:ecapa_c128_skdfe_feature" \
        "ECAPA c128, SKDFE, label level:ecapa_c128_skdfe_label" \
        "ECAPA c128, SKDFE, ramp of 8 epochs:ecapa_c128_skdfe_ramp" \
        "ECAPA c128, SKDFE, alpha 0.2:ecapa_c128_skdfe_weak" "ECAPA c512:ecapa_c512" "ECAPA c512, SKDFE:ecapa_c512_skdfe" "ResNet18:resnet18" \
        "ResNet18, SKDFE:resnet18_skdfe" "ResNet34:resnet34" "ResNet34, SKDFE:resnet34_skdfe")
      ;;
    *) echo "$0: no row '$row'; see --help" >&2 && exit 1 ;;
  esac
done
