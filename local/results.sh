# Sourced by egs/<corpus>/results.sh: the rows of a RESULTS.md, each an experiment, and the tables of those that are there.
# shellcheck shell=bash disable=SC2034  # what is set here is used where this is sourced

root=$(CDPATH='' cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# result_arguments USAGE "$@": options for run.sh in `options`, the rest in `rows`.
result_arguments() {
  local usage=$1
  shift
  options=() rows=()
  while [ $# -gt 0 ]; do
    case $1 in
      --help) echo "$usage" && exit ;;
      --*) options+=("$1" "${2?$1 needs a value}") && shift 2 ;;
      *) rows+=("$1") && shift ;;
    esac
  done
}

# experiment CORPUS CONF SEED [OPTION ...]: run a row.
experiment() {
  bash "$root/run.sh" --corpus "$1" --config "conf/$2.yaml" --seed "$3" "${options[@]}" "${@:4}"
}

# tables CORPUS NAME:CONF ...: compare what is there of these, all seeds, with the first one, by cosine and AS-norm.
tables() {
  local corpus=$1 exp=exp/$1 baseline=() systems=() system folders scoring
  cd "$root" && . ./path.sh
  for system in "${@:2}"; do
    folders=$(find "$exp" -maxdepth 2 -path "$exp/${system#*:}*/results.json" -printf '%h\n' 2> /dev/null | sort |
      grep -xE "$exp/${system#*:}(_s[0-9]+)?" | paste -sd,) || continue
    systems+=(--row "${system%%:*}=$folders")
    if [ "$system" = "$2" ]; then baseline=(--baseline "${system%%:*}"); fi
  done
  if [ ${#systems[@]} -eq 0 ]; then echo "none of these rows is there yet: ${*:2}" && return; fi
  for scoring in cosine asnorm; do
    python -m wespeaker_lite.bin.compare --utt2spk "data/$corpus/test/utt2spk" --trials trials_O trials_H \
      --scoring "$scoring" "${systems[@]}" "${baseline[@]}"
    echo
  done
}

# What `kd` compares: ECAPA c128 by each way to teach it; the plain one first.
kd_confs() {
  printf '%s\n' ecapa_c128 ecapa_c128_label_kd ecapa_c128_embed_kd ecapa_c128_skdfe
  (cd "$root/conf" && printf '%s\n' kd/ecapa_c128_*.yaml | sed 's/\.yaml$//')
}

# kd CORPUS [OPTION ...]: run all of them with two seeds, one seed after the other, and make their table.
kd() {
  local corpus=$1 confs seed conf systems=()
  mapfile -t confs < <(kd_confs)
  for seed in 0 1; do
    for conf in "${confs[@]}"; do experiment "$corpus" "$conf" "$seed" "${@:2}"; done
  done
  for conf in "${confs[@]}"; do systems+=("$(basename "$conf"):$(basename "$conf")"); done
  (tables "$corpus" "${systems[@]}")
}
