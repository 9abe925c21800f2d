#!/usr/bin/env bash
# A corpus of your own: a folder that is only read. Called by stages 0 and 1 from the repository's root.
set -euo pipefail

here=$(dirname "$0")
usage="Usage: $0 get CORPUS_DIR              look at the corpus
       $0 lists CORPUS_DIR DATA_DIR   write data dirs and trials
 e.g.: $0 lists /corpora/my_speech data/own
CORPUS_DIR is a tree speaker/[session/]utterance.{wav,flac,ogg,opus,mp3} or a Kaldi data dir (wav.scp, utt2spk,
segments), or has a train/ and/or a test/ of such kind; else its speakers are split by seed.
Files trials* in it (or in its test/) are used, as 'enroll test target|nontarget' or '1|0 enroll test'; without any,
lists are made: all target pairs (across sessions, where there are some), as many nontargets at random (trials_O), and,
where it has spk2gender, of the same sex (and age group, with spk2age) (trials_H).
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
