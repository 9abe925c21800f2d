#!/usr/bin/env bash
# Prepares the mini corpus of simulated speakers. Stages 0 and 1 call it from the root of the repository.
set -euo pipefail

here=$(dirname "$0")
default_dir=data/mini/corpus
usage="Usage: $0 get CORPUS_DIR              simulate the corpus in $default_dir, or check an existing one
       $0 lists CORPUS_DIR DATA_DIR   write data dirs and trials
 e.g.: $0 get $default_dir
       MINI_TRAIN_SPEAKERS=500 MINI_SEED=2 $0 get $default_dir
The variables MINI_* in $here/corpus.conf set the size. To simulate one elsewhere, for --corpus-dir:
       python -m wespeaker_lite.bin.simulate_corpus --out DIR --train-speakers 500"

# shellcheck source=egs/mini/corpus.conf
. "$here/corpus.conf"

get() {
  if [ "$(realpath -m "$1")" = "$(realpath -m "$default_dir")" ]; then
    python -m wespeaker_lite.bin.simulate_corpus --out "$1" --seed "$MINI_SEED" --jobs "$MINI_JOBS" \
      --train-speakers "$MINI_TRAIN_SPEAKERS" --test-speakers "$MINI_TEST_SPEAKERS" --sessions "$MINI_SESSIONS" \
      --train-utterances "$MINI_TRAIN_UTTERANCES" --test-utterances "$MINI_TEST_UTTERANCES"
  elif [ -e "$1/simulation.json" ]; then
    python -m wespeaker_lite.bin.make_lists --corpus-dir "$1"
  else
    echo "$0: $1 has no simulated corpus; leave --corpus-dir out, or make one there:" \
      "python -m wespeaker_lite.bin.simulate_corpus --out $1" >&2
    exit 1
  fi
}

case $#:${1-} in
  2:get) get "$2" ;;
  3:lists) python -m wespeaker_lite.bin.make_lists --corpus-dir "$2" --data-dir "$3" --seed "$MINI_SEED" ;;
  *)
    echo "$usage" >&2
    exit 1
    ;;
esac
