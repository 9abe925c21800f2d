#!/usr/bin/env bash
# Prepares speechocean762 and one clip per LibriSpeech speaker, from OpenSLR or from a folder. Stages 0 and 1 call it from the
# root of the repository.
set -euo pipefail

here=$(dirname "$0")
default_dir=data/speechocean_libri/corpus
usage="Usage: $0 get CORPUS_DIR              download into $default_dir, or check existing copies
       $0 lists CORPUS_DIR DATA_DIR   write data dirs and trials
 e.g.: $0 get $default_dir
       $0 lists /corpora data/speechocean_libri
CORPUS_DIR has speechocean762/, and librispeech_clips/SPEAKER-CHAPTER-UTTERANCE.{flac,opus,...} or
LibriSpeech/train-clean-100/. The first clip (by name) of each speaker is added to the training set, as speaker lsSPEAKER.
To use a mirror: LIBRISPEECH_URL=https://openslr.elda.org/resources/12/train-clean-100.tar.gz $0 get $default_dir"

# shellcheck source=egs/speechocean_libri/corpus.conf
. "$here/corpus.conf"

speechocean762() { "$here/../speechocean762/prepare.sh" "$@"; }

get() {
  if [ "$(realpath -m "$1")" = "$(realpath -m "$default_dir")" ]; then download "$1"; fi
  lists "$1"
}

download() {
  mkdir -p "$1"
  if [ ! -d "$1/speechocean762" ]; then # one copy serves both corpora
    speechocean762 get data/speechocean762/corpus
    ln -sfn "$(realpath data/speechocean762/corpus)" "$1/speechocean762"
  fi
  if [ ! -d "$1/librispeech_clips" ] && [ ! -d "$1/LibriSpeech" ]; then
    # The first clip of a speaker is the first clip of a chapter: 0000. The other clips would need 6 GB.
    python -m wespeaker_lite.bin.fetch_corpus --url "$LIBRISPEECH_URL" --size "$LIBRISPEECH_SIZE" \
      --sha256 "$LIBRISPEECH_SHA256" --keep '*-0000.flac' --out "$1/LibriSpeech"
  fi
}

clips_of() {
  for folder in "$1"/{librispeech_clips,LibriSpeech/train-clean-100}; do
    if [ -d "$folder" ]; then echo "$folder" && return; fi
  done
  echo "$0: $1 has neither librispeech_clips/ nor LibriSpeech/train-clean-100/: put one there," \
    "or leave --corpus-dir out to download it" >&2
  return 1
}

lists() { # CORPUS_DIR [--data-dir DATA_DIR]
  local clips
  speechocean762 get "$1/speechocean762"
  clips=$(clips_of "$1")
  python -m wespeaker_lite.bin.make_lists --corpus-dir "$1/speechocean762" --seed "$SPEECHOCEAN762_SEED" \
    --clips "$clips" --clips-prefix ls --clips-speakers "$LIBRISPEECH_SPEAKERS" "${@:2}"
}

case $#:${1-} in
  2:get) get "$2" ;;
  3:lists) lists "$2" --data-dir "$3" ;;
  *)
    echo "$usage" >&2
    exit 1
    ;;
esac
