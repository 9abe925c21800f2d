#!/usr/bin/env bash
# The check of the GPU path, on a machine with a GPU, without a network: see --help.
set -uo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." || exit

device=cuda
parts="a b"
logs=exp/gpu_check
wheels=
limit=480
corpus=pool
corpus_dir=
rows=
at_once=4
set=()
help_message="Usage: bash tests/gpu/run.sh [options]

  bash tests/gpu/run.sh --wheels ~/wheels --logs ~/logs
  bash tests/gpu/run.sh --device cpu --limit 3600                # a rehearsal: every line, on a CPU
  bash tests/gpu/run.sh --parts c --corpus-dir DIR --rows 'bc_cmt_tiny bc_cmt_tiny_attn_kd:0'

Parts: a tests (pytest -m gpu) and the recipe on mini, b the benchmark, c rows of a corpus
(egs/CORPUS/rows.tsv). A table stands last.

  --device D      cuda, or cpu for a rehearsal ($device)
  --parts 'a b'   which parts ($parts)
  --logs DIR      where logs go ($logs)
  --wheels DIR    wheels of what Python lacks here (soundfile, kaldiio, soxr ...); installed into venv/ of --logs
  --limit N       seconds for all parts; what is not done then is ended, and said ($limit)
  --corpus NAME, --corpus-dir DIR, --rows 'ROW:SEED ...', --at-once N, --set KEY=VALUE   of part c; what it trains
                  (final.pt, losses, config) is also put into row_NAME.tar of --logs"
# shellcheck source=tools/parse_options.sh
. tools/parse_options.sh

fail() { echo "tests/gpu/run.sh: $*" >&2; exit 1; }
[[ $device == cuda || $device == cpu ]] || fail "--device $device: cuda or cpu"
[[ " $parts " != *" c "* || -n $rows ]] || fail "part c runs rows that --rows names: ROW or ROW:SEED ..."
mkdir -p "$logs" || exit 1
logs=$(realpath "$logs")
began=$SECONDS table=()

# prepare: an environment that sees what the machine has, and has what the wheels bring.
prepare() {
  local missing
  if ! missing=$(python3 tools/requirements.py requirements.txt); then
    [ -n "$wheels" ] || fail "Python lacks what the recipe needs: ${missing//$'\n'/, }; give their wheels by --wheels DIR"
    cut -d : -f 1 <<< "$missing" > "$logs/missing.txt"
    if ! { python3 -m venv --system-site-packages "$logs/venv" &&
      "$logs/venv/bin/python" -m pip install --no-index --find-links "$wheels" -r "$logs/missing.txt"; } &> "$logs/venv.log"; then
      fail "the wheels cannot be installed, see $logs/venv.log"
    fi
    export PATH=$logs/venv/bin:$PATH
  fi
  # shellcheck source=path.sh
  . ./path.sh
  python -c "import sys, torch; sys.exit('$device' == 'cuda' and not torch.cuda.is_available())" ||
    fail "there is no GPU here that torch can use; --device cpu rehearses on a CPU"
  python - "$device" > "$logs/machine.txt" << 'END'
import platform, sys, torch
card = torch.cuda.get_device_name() if sys.argv[1] == "cuda" else "a rehearsal on a CPU"
print(f"{card}; torch {torch.__version__}, CUDA {torch.version.cuda}, Python {platform.python_version()}")
END
  # One GPU, for all that runs side by side here: run.pl would leave one alone that is in use.
  if [ "$device" = cuda ]; then export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES:-0}; fi
}

# check NAME COMMAND...: run within what is left of the limit, with a log of its own, and note how it ended.
check() {
  local name=$1 left=$((limit - (SECONDS - began))) code=0 started=$SECONDS
  shift
  if [ "$left" -lt 1 ]; then
    table+=("$name|not run: no time left|0")
    return
  fi
  echo "== $name: $*"
  timeout --kill-after 20 "$left" "$@" > "$logs/$name.log" 2>&1 || code=$?
  case $code in
    0) table+=("$name|ok|$((SECONDS - started))") ;;
    3) table+=("$name|the time was up before all were whole|$((SECONDS - started))") ;; # as results.sh has it
    124 | 137) table+=("$name|ended at the limit|$((SECONDS - started))") ;;
    *) table+=("$name|FAILED ($code), see $logs/$name.log|$((SECONDS - started))") ;;
  esac
}

part_a() {
  local gpus=() small=()
  if [ "$device" = cuda ]; then gpus=(--gpu 1); else small=(--set runtime.device=cpu --set train.epochs=3 --teacher-set train.epochs=3); fi
  if [ "$device" = cpu ]; then export MINI_TRAIN_SPEAKERS=8 MINI_TEST_SPEAKERS=12 MINI_SESSIONS=2; fi
  check a_pytest env WESPEAKER_LITE_GPU_TESTS="$device" python -m pytest -q -m gpu -p no:cacheprovider tests/gpu
  check a_recipe bash run.sh --name "gpu_check_$device" "${gpus[@]}" "${small[@]}"
}

part_b() {
  check b_benchmark python -m tests.benchmarks.gpu --device "$device"
}

part_c() {
  local options=(--corpus-dir "$corpus_dir" --stop-stage 4) minutes value folder names
  [ -n "$corpus_dir" ] || options=(--stop-stage 4)
  if [ "$device" = cuda ]; then options+=(--gpu 1); else options+=(--set runtime.device=cpu); fi
  for value in "${set[@]}"; do options+=(--set "$value"); done
  # A row has one minute more to write its checkpoint.
  minutes=$(awk -v left="$((limit - (SECONDS - began) - 70))" 'BEGIN { print (left > 6 ? left / 60 : 0.1) }')
  touch "$logs/c_began"
  # shellcheck disable=SC2086  # rows are words
  check c_rows bash "egs/$corpus/results.sh" "${options[@]}" --parallel "$at_once" --minutes "$minutes" $rows
  for folder in "exp/$corpus"/*/; do
    [ "$folder/metrics.jsonl" -nt "$logs/c_began" ] || continue
    names=(config.yaml metrics.jsonl train.log)
    [ ! -e "$folder/final.pt" ] || names+=(final.pt)
    tar -C "$folder" -cf "$logs/row_$(basename "$folder").tar" "${names[@]}"
  done
}

prepare
for part in $parts; do
  case $part in
    a) part_a ;;
    b) part_b ;;
    c) part_c ;;
    *) fail "--parts $parts: a, b and c" ;;
  esac
done

echo
cat "$logs/machine.txt"
[ ! -e "$logs/b_benchmark.log" ] || cat "$logs/b_benchmark.log"
[ ! -e "$logs/c_rows.log" ] || grep '^|' "$logs/c_rows.log"
printf '%-14s %6s  %s\n' check seconds result
code=0
for line in "${table[@]}"; do
  IFS='|' read -r name result seconds <<< "$line"
  printf '%-14s %6s  %s\n' "$name" "$seconds" "$result"
  [ "$result" = ok ] || code=1
done
exit "$code"
