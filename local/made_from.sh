# Sourced by common.sh: what the data were made from, so that a later stage cannot be given another corpus in silence.
# Stage 0 leaves data/<corpus>/.got_from, stage 1 made_from: lines `name value`, a name being that of an option or variable.
# shellcheck shell=bash disable=SC2154  # common.sh sets these

# Stage 0 takes what it is given; stage 1 goes by what stage 0 got, later stages by what stage 1 has made lists of.
case $(basename "$0"):$stage in
  run.sh:0 | get_corpus.sh:*) record='' ;;
  run.sh:1 | make_lists.sh:*) record=$data/.got_from ;;
  *) record=$data/made_from ;;
esac

# What is not given is what it was: options and variables that are empty get their values of the record.
take_made_from() {
  local line key
  [ -n "$record" ] && [ -e "$record" ] || return 0
  while IFS= read -r line; do
    key=${line%% *}
    [[ $key =~ ^(corpus_dir|vox[12]_dir|[A-Z][A-Z0-9]+_[A-Z0-9_]+)$ && -z ${!key-} ]] || continue
    printf -v "$key" %s "${line#* }"
    [[ $key != [A-Z]* ]] || export "${key?}" # for prepare.sh
  done < "$record"
}

# What is given must be what it was.
check_made_from() {
  local line key value
  [ -n "$record" ] || return 0
  if [ ! -e "$record" ]; then
    [ "$record" != "$data/made_from" ] || [ -z "$(made_sets)" ] || die "$data is not finished: run stage 1 first"
    return
  fi
  while IFS= read -r line; do
    key=${line%% *} value=${line#* }
    same_origin "$key" "$value" || die "$(as_given "$key" "${!key-}"), but $data was made from $(as_given "$key" "$value"):" \
      "leave it out, or run stages 0 to 2 with it; a second --corpus-dir gets a folder of its own by --data-name NAME"
  done < "$record"
}

same_origin() { [ "${!1-}" = "$2" ] || [[ $1 == *_dir && ${!1-} -ef $2 ]]; }

# An option or a variable as its user writes it.
as_given() { if [[ $1 == [A-Z]* ]]; then echo "$1=$2"; else echo "--${1//_/-} ${2:-''}"; fi; }

made_from() {
  local key
  for key in corpus corpus_dir $corpus_variables; do echo "$key ${!key-}"; done
}
leave_made_from() { made_from > "$1.new" && mv "$1.new" "$1"; }

# The noise and the rooms that the config asks for are those that stage 2 has listed.
check_clips() {
  local copies kind option
  copies=$(setting augment.copies)
  for kind in musan rirs; do
    option=${kind}_dir
    if [ "$kind" = musan ] && ! uses_noise && [[ ! $copies =~ noise|music|babble ]]; then continue; fi
    if [ "$kind" = rirs ] && [[ ! $copies =~ reverb ]]; then continue; fi
    [ -n "${!option}" ] && [ -e "$data/$kind/made_from" ] || continue
    same_origin "$option" "$(cat "$data/$kind/made_from")" ||
      die "--$kind-dir ${!option}, but $data/$kind was made from $(cat "$data/$kind/made_from"): run stage 2 with it, or leave it out"
  done
}
