#!/usr/bin/env bash
# Prepares speechocean762, from OpenSLR or from a folder. Stages 0 and 1 call it from the root of the repository.
set -euo pipefail

here=$(dirname "$0")
default_dir=data/speechocean762/corpus
usage="Usage: $0 get CORPUS_DIR              download into $default_dir, or check an existing copy
       $0 lists CORPUS_DIR DATA_DIR   write data dirs and trials
 e.g.: $0 get $default_dir
       $0 lists /corpora/speechocean762 data/speechocean762
If CORPUS_DIR has trials_O and trials_H, they are used. Otherwise lists are made with the seed SPEECHOCEAN762_SEED.
To use a mirror: SPEECHOCEAN762_URL=https://openslr.elda.org/resources/101/speechocean762.tar.gz $0 get $default_dir"

# shellcheck source=egs/speechocean762/corpus.conf
. "$here/corpus.conf"

get() {
  if [ ! -e "$1/train/wav.scp" ] && [ "$(realpath -m "$1")" = "$(realpath -m "$default_dir")" ]; then
    python -m wespeaker_lite.bin.fetch_corpus --url "$SPEECHOCEAN762_URL" --size "$SPEECHOCEAN762_SIZE" \
      --sha256 "$SPEECHOCEAN762_SHA256" --out "$1"
  fi
  check_layout "$1"
  python -m wespeaker_lite.bin.make_lists --corpus-dir "$1"
}

check_layout() {
  for file in {train,test}/{wav.scp,utt2spk}; do
    if [ ! -e "$1/$file" ]; then
      echo "$0: $1 is not speechocean762: it has no $file; leave --corpus-dir out to download the corpus" >&2
      exit 1
    fi
  done
}

case $#:${1-} in
  2:get) get "$2" ;;
  3:lists)
    check_layout "$2"
    python -m wespeaker_lite.bin.make_lists --corpus-dir "$2" --data-dir "$3" --seed "$SPEECHOCEAN762_SEED"
    ;;
  *)
    echo "$usage" >&2
    exit 1
    ;;
esac
