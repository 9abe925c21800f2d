# Sourced by common.sh: what data and teachers were made from, so that a later stage cannot silently use others.
# Stage 0 leaves data/<corpus>/.got_from, stage 1 made_from: lines `name value`, a name being that of an option or variable.
# shellcheck shell=bash disable=SC2154  # common.sh sets these

# Stage 0 takes what it is given; stage 1 goes by what stage 0 got, later stages by what stage 1 has made lists of.
case $(basename "$0"):$stage in
  run.sh:0 | get_corpus.sh:*) record='' ;;
  run.sh:1 | make_lists.sh:*) record=$data/.got_from ;;
  *) record=$data/made_from ;;
esac

# What is not given stays: options and variables that are empty get their values of the record.
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

# What is given must be the same as then.
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
leave_made_from() { made_from | put "$1"; }

# put FILE: standard input becomes FILE, whole or not at all; one that holds it already stays.
put() {
  mkdir -p "$(dirname "$1")" && cat > "$1.new"
  if cmp -s "$1.new" "$1"; then rm "$1.new"; else mv "$1.new" "$1"; fi
}

# The noise and the impulse responses that the config asks for are those that stage 2 has listed.
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

# The folders of what stage 3 trains for this experiment: its teachers, and the model that it starts from.
trained_first() {
  local start conf teachers
  start=$(starting_model) || return
  find_teachers || return
  for conf in "${teachers[@]}"; do
    if is_conf "$conf"; then teacher_folder "$conf"; fi
  done
  if [ "$start" != "$(setting start_from)" ]; then dirname "$start"; fi
}

# Experiments share a teacher by the name of its conf: stage 3 keeps what it was asked for, and the stamp of what came of it.
leave_asked_for() {
  local folder folders
  folders=$(trained_first) || exit
  while IFS= read -r folder; do
    [ -z "$folder" ] || put "$exp/asked_for/$(basename "$folder").stamp" < "$folder/.train.stamp"
  done <<< "$folders"
  printf '%s\n' "${teacher_set[@]}" | put "$exp/asked_for/teacher_set"
}

check_teacher_set() {
  [ "${#teacher_set[@]}" -gt 0 ] && [ -e "$exp/asked_for/teacher_set" ] || return 0
  printf '%s\n' "${teacher_set[@]}" | cmp -s - "$exp/asked_for/teacher_set" ||
    die "--teacher-set ${teacher_set[*]}, but stage 3 of $name was given '$(paste -sd ' ' "$exp/asked_for/teacher_set")':" \
      "run stages 3 and 4 with it, or leave it out"
}

# Another run may have trained the teacher again since: this student must not silently learn from that one.
check_asked_for() {
  local folder folders
  folders=$(trained_first) || exit
  while IFS= read -r folder; do
    [ -n "$folder" ] || continue # there is none
    [ -e "$exp/asked_for/teacher_set" ] || die "$folder: run stage 3 first, which trains it, or finds that it is there"
    [ ! -e "$folder/.train.stamp" ] || cmp -s "$folder/.train.stamp" "$exp/asked_for/$(basename "$folder").stamp" ||
      die "$folder is not what stage 3 of $name has trained: another run has trained it again since, with another" \
        "--teacher-set or on other data; run stage 3 again, or give the two teachers confs of different names"
  done <<< "$folders"
}
