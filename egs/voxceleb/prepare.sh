#!/usr/bin/env bash
# Prepares VoxCeleb1 and 2, and only reads their folders. Stages 0 and 1 call it from the root of the repository.
set -euo pipefail

here=$(dirname "$0")
default_dir=data/voxceleb/corpus
vox1_dir=
vox2_dir=
nj=2
cmd=tools/run.pl
help_message="Usage: $0 [options] get CORPUS_DIR              link both corpora in $default_dir, get the trial lists
       $0 [options] lists CORPUS_DIR DATA_DIR   write data dirs and trials, and decode m4a with VOXCELEB_DECODE=flac
 e.g.: $0 --vox1-dir /corpora/vox1 --vox2-dir /corpora/vox2 get $default_dir
       VOXCELEB_DECODE=flac $0 --nj 8 lists $default_dir data/voxceleb
--vox1-dir and --vox2-dir contain, as published, {dev,test}/{wav,aac}/id10001/1zcIwhmdeo4/00001.{wav,m4a}, or
vox1_dev_wav/wav/..., vox1_test_wav/wav/..., or all in wav/. Only 'get' needs them. Without VoxCeleb2 there is no
training set. m4a needs ffmpeg. veri_test2.txt, list_test_all2.txt and list_test_hard2.txt are read from
VOXCELEB_LISTS_DIR, the folders of the corpora or their meta/, or downloaded. Differences from the published corpora are
listed in DATA_DIR/differences.txt. For the variables VOXCELEB_*, see $here/corpus.conf.
--nj N, --cmd CMD: number of decoding jobs ($nj), and the job runner ($cmd)."

# shellcheck source=tools/parse_options.sh
. "$here/../../tools/parse_options.sh"
# shellcheck source=egs/voxceleb/corpus.conf
. "$here/corpus.conf"
read -ra letters <<< "$VOXCELEB_TRIALS"

prepare() {
  python -m wespeaker_lite.bin.prepare_voxceleb --corpus-dir "$default_dir" --train "$VOXCELEB_TRAIN" \
    --trials "${letters[@]}" --decode "$VOXCELEB_DECODE" --strict "$VOXCELEB_STRICT" "$@"
}

get() {
  mkdir -p "$default_dir"
  link lists "$VOXCELEB_LISTS_DIR"
  link vox1 "$vox1_dir"
  link vox2 "$vox2_dir"
  prepare --meta-url "$VOXCELEB_META_URL"
}

# link NAME DIR: makes CORPUS_DIR/NAME a link to DIR, or removes it if DIR is empty.
link() {
  if [ -z "$2" ]; then rm -f "$default_dir/$1" && return; fi
  if [ ! -d "$2" ]; then
    echo "$0: $2: no such folder (given for $1)" >&2
    exit 1
  fi
  ln -sfn "$(realpath --no-symlinks "$2")" "$default_dir/$1"
}

lists() {
  prepare --data-dir "$1"
  if [ ! -e "$1/decode.scp" ]; then return; fi
  echo "decoding m4a to $1/flac by $nj jobs, logs in $1/log/decode.*.log"
  $cmd "JOB=1:$nj" "$1/log/decode.JOB.log" \
    python -m wespeaker_lite.bin.decode_audio --scp "$1/decode.scp" --out "$1/flac" --part JOB --parts "$nj"
}

if [ $# -ge 2 ] && [ "$(realpath -m "$2")" != "$(realpath -m "$default_dir")" ]; then
  echo "$0: VoxCeleb needs --vox1-dir and --vox2-dir instead of --corpus-dir" >&2
  exit 1
fi
case $#:${1-} in
  2:get) get ;;
  3:lists) lists "$3" ;;
  *)
    echo "$help_message" >&2
    exit 1
    ;;
esac
