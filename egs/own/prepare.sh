#!/usr/bin/env bash
# Prepares your own corpus, and only reads its folder. Stages 0 and 1 call it from the root of the repository.
set -euo pipefail

here=$(dirname "$0")
usage="Usage: $0 get CORPUS_DIR              check the corpus
       $0 lists CORPUS_DIR DATA_DIR   write data dirs and trials
 e.g.: $0 lists /corpora/my_speech data/own
CORPUS_DIR is a tree speaker/[session/]utterance.{wav,flac,ogg,opus,mp3}, or a Kaldi data dir (wav.scp, utt2spk,
segments). It may have train/ and test/ of one of these kinds; otherwise its speakers are split at random. Beside them,
unlabelled/ has speech of unknown speakers for a student with a teacher: audio at any depth, or a data dir without utt2spk.
Trial lists are the files trials* in it or in its test/, with lines 'enroll test target|nontarget' or '1|0 enroll test'.
Without any, two lists are made. trials_O has all target pairs (across sessions, if there are several) and as many random
nontargets. trials_H needs spk2gender, and has nontargets of the same sex (and age group, with spk2age).
OWN_SEED, OWN_TEST_SHARE and OWN_MAX_TARGETS: see $here/corpus.conf."

# shellcheck source=egs/own/corpus.conf
. "$here/corpus.conf"

case $#:${1-} in
  2:get)
    if [ ! -d "$2" ]; then
      echo "$0: $2: no such folder; name the folder of your corpus by --corpus-dir" >&2
      exit 1
    fi
    python -m wespeaker_lite.bin.make_lists --corpus-dir "$2" --seed "$OWN_SEED" --test-share "$OWN_TEST_SHARE"
    ;;
  3:lists)
    python -m wespeaker_lite.bin.make_lists --corpus-dir "$2" --data-dir "$3" --seed "$OWN_SEED" \
      --test-share "$OWN_TEST_SHARE" --max-targets "$OWN_MAX_TARGETS"
    ;;
  *)
    echo "$usage" >&2
    exit 1
    ;;
esac
