#!/usr/bin/env bash
# Prepares several corpora: the folders, or links to folders, in one folder, which is only read. Stages 0 and 1 call it from
# the root of the repository.
set -euo pipefail

here=$(dirname "$0")
usage="Usage: $0 get POOL_DIR              check the pool
       $0 lists POOL_DIR DATA_DIR   write data dirs and trials
 e.g.: $0 lists /corpora data/pool
Each folder of POOL_DIR is a corpus: a tree speaker/[session/]utterance.{wav,flac,ogg,opus,mp3} or a Kaldi data dir.
POOL_DIR/pool.yaml, or the file in POOL_YAML, says how they are used:
  train:
    mine: {}                                             # the folder mine
    clips: {layout: clips}                               # files SPEAKER-*.flac, one for each speaker
    calls: {max_utterances: 20, max_seconds: 120}        # of each speaker
    radio: {layout: unlabelled, max_seconds: 36000}      # of unknown speakers, for a student with a teacher
  test:
    calls_test: {folder: calls2/test, corpus: calls}     # ids begin with calls-; its speakers must not be in train
    read: {trials: [read/trials_O, read/trials_H]}       # else trials* in the folder, else made, across sessions
POOL_SEED and POOL_MAX_TARGETS: see $here/corpus.conf."

# shellcheck source=egs/pool/corpus.conf
. "$here/corpus.conf"

lists() { # POOL_DIR [--data-dir DATA_DIR]
  if [ ! -d "$1" ]; then
    echo "$0: $1: no such folder; name the folder of your corpora by --corpus-dir" >&2
    exit 1
  fi
  if [ ! -e "${POOL_YAML:-$1/pool.yaml}" ]; then
    echo "$0: ${POOL_YAML:-$1/pool.yaml}: no such file; write it, or set POOL_YAML to another: see $0" >&2
    exit 1
  fi
  python -m wespeaker_lite.bin.make_lists --corpus-dir "$1" --pool "${POOL_YAML:-$1/pool.yaml}" --seed "$POOL_SEED" \
    --max-targets "$POOL_MAX_TARGETS" "${@:2}"
}

case $#:${1-} in
  2:get) lists "$2" ;;
  3:lists) lists "$2" --data-dir "$3" ;;
  *)
    echo "$usage" >&2
    exit 1
    ;;
esac
