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
