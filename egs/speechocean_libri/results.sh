#!/usr/bin/env bash
# The rows of RESULTS.md, each resumable; see --help.
set -euo pipefail
# shellcheck source=local/results.sh
. "$(dirname "$0")/../../local/results.sh"
result_arguments "Usage: bash $0 --corpus-dir DIR [ROW ...]
A row is a conf and a seed, such as bc_cmt_tiny_attn_kd:1; its teacher is trained first if it is not there. 'table' makes
the tables of what is there. 'kd' runs conf/kd/*.yaml and plain, label, embedding and self-teacher KD of ECAPA c128 with two
seeds each, then their table (docs/kd.md). Options go to run.sh. Without rows: all that RESULTS.md is meant to hold, the weightiest
first, then the tables (about ten hours on two cores)." "$@"

# Tries: rows such as ecapa_c128_skdfe_feature:0, which are a conf with settings changed, of which each stands behind a |.
attention="bc_cmt_tiny_attn_kd|distill.terms=[{name: attention"
skdfe="ecapa_c128_skdfe|distill.terms=[{name: self_teacher"
long="|train.epochs=24|train.learning_rate.warmup_epochs=6|train.margin.end_epoch=12"
declare -A tries=(
  [bc_cmt_tiny_attn_kd_weight1]="$attention, weight: 1.0}]"
  [bc_cmt_tiny_attn_kd_weight100]="$attention, weight: 100.0}]"
  [bc_cmt_tiny_attn_kd_scores]="$attention, weight: 1.0, distance: scores}]"
  [bc_cmt_tiny_attn_kd_uniform]="$attention, weight: 10.0, pairs: uniform}]"
  [bc_cmt_tiny_attn_kd_base_on]="bc_cmt_tiny_attn_kd|distill.teacher=conf/bc_cmt_base_on.yaml"
  [bc_cmt_tiny_attn_kd_campplus]="bc_cmt_tiny_attn_kd|distill.teacher=conf/bc_cmt_base_campplus_kd.yaml"
  [ecapa_c128_skdfe_feature]="$skdfe, alpha: 0.0}]"
  [ecapa_c128_skdfe_label]="$skdfe, beta: 0.0}]"
  [ecapa_c128_skdfe_class]="$skdfe, alpha: 0.0, beta: 0.0}]" # what its own classification does, with no level of KD
  [ecapa_c128_skdfe_ramp]="$skdfe, ramp_epochs: 8.0}]"
  [ecapa_c128_skdfe_weak]="$skdfe, alpha: 0.2}]"
  [ecapa_c128_skdfe_beta10]="$skdfe, beta: 10.0}]"
  [ecapa_c128_skdfe_beta100]="$skdfe, beta: 100.0}]"
  [ecapa_c128_skdfe_t1]="$skdfe, temperature: 1.0}]"
  [ecapa_c128_skdfe_t8]="$skdfe, temperature: 8.0}]"
  [ecapa_c128_long]="ecapa_c128$long"
  [ecapa_c128_skdfe_long]="ecapa_c128_skdfe$long"
  [ecapa_c128_skdfe_feature_long]="$skdfe, alpha: 0.0}]$long"
  [ecapa_c128_skdfe_class_long]="$skdfe, alpha: 0.0, beta: 0.0}]$long"
)

row() { # CONF SEED
  local suffix='' conf settings setting changed=()
  if [ -z "${tries[$1]-}" ]; then
    experiment speechocean_libri "$1" "$2"
  else
    [ "$2" = 0 ] || suffix=_s$2
    IFS='|' read -r conf settings <<< "${tries[$1]}"
    while IFS= read -rd '|' setting; do changed+=(--set "$setting"); done <<< "$settings|"
    experiment speechocean_libri "$conf" "$2" --name "$1$suffix" "${changed[@]}"
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
    kd) kd speechocean_libri ;;
    *:*) row "${row%:*}" "${row#*:}" ;;
    table)
      tables speechocean_libri "Tiny:bc_cmt_tiny" "Tiny, attention KD:bc_cmt_tiny_attn_kd" "Tiny 2-D:bc_cmt_tiny_2d" \
        "Tiny, embedding KD (CAM++):bc_cmt_tiny_embed_kd" "Tiny, label KD:bc_cmt_tiny_label_kd" \
        "Tiny, all KD:bc_cmt_tiny_all_kd" "Tiny, attention KD from the Base of CAM++:bc_cmt_tiny_attn_kd_campplus" \
        "Tiny, attention KD from the Base of 20 epochs:bc_cmt_tiny_attn_kd_base_on" "Small:bc_cmt_small" \
        "Base, embedding KD (CAM++):bc_cmt_base_campplus_kd" "Base:bc_cmt_base" "Base, 20 epochs:bc_cmt_base_on"
      for base in "Tiny 2-D:bc_cmt_tiny_2d" "Base:bc_cmt_base"; do
        (tables speechocean_libri "$base" "Tiny:bc_cmt_tiny" "Tiny, attention KD:bc_cmt_tiny_attn_kd")
      done
      for sizes in "ecapa_c128 ecapa_c512" "resnet18 resnet34"; do
        read -r small large <<< "$sizes"
        for base in "$small" "$large"; do # what the self-teacher gives each, and whether the small one comes level
          (tables speechocean_libri "$base:$base" "$small, SKDFE:${small}_skdfe" "$large, SKDFE:${large}_skdfe")
        done
      done
      for tried in bc_cmt_tiny_attn_kd ecapa_c128_skdfe; do
        mapfile -t names < <(printf '%s\n' "${!tries[@]}" | grep "^${tried}_" | grep -v "_long$" | sort | sed "s/.*/&:&/")
        (tables speechocean_libri "$tried:$tried" "${names[@]}")
      done
      (tables speechocean_libri "ECAPA c128, 24 epochs:ecapa_c128_long" "SKDFE:ecapa_c128_skdfe_long" \
        "SKDFE, feature level:ecapa_c128_skdfe_feature_long" "SKDFE, own classification alone:ecapa_c128_skdfe_class_long")
      ;;
    *) echo "$0: no row '$row'; see --help" >&2 && exit 1 ;;
  esac
done
