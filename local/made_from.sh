# Sourced by common.sh: records what data and teachers were made from, so that a later stage cannot silently use others.
# Stage 0 writes data/<corpus>/.got_from, and stage 1 writes made_from. Lines are `name value`, where the name is that of an
# option or of an environment variable.
# shellcheck shell=bash disable=SC2154  # common.sh sets these

# Stage 0 starts from the options alone. Stage 1 uses the record of stage 0, and later stages that of stage 1.
case $(basename "$0"):$stage in
  run.sh:0 | get_corpus.sh:*) record='' ;;
  run.sh:1 | make_lists.sh:*) record=$data/.got_from ;;
  *) record=$data/made_from ;;
esac

# Sets options and variables that are empty to their values in the record.
read_made_from() {
  local line key
  [ -n "$record" ] && [ -e "$record" ] || return 0
  while IFS= read -r line; do
    key=${line%% *}
    [[ $key =~ ^(corpus_dir|vox[12]_dir|[A-Z][A-Z0-9]+_[A-Z0-9_]+)$ && -z ${!key-} ]] || continue
    printf -v "$key" %s "${line#* }"
    [[ $key != [A-Z]* ]] || export "${key?}" # for prepare.sh
  done < "$record"
}

# Fails if an option or variable differs from the record.
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

# Prints an option or a variable as a user writes it.
as_given() { if [[ $1 == [A-Z]* ]]; then echo "$1=$2"; else echo "--${1//_/-} ${2:-''}"; fi; }

made_from() {
  local key
  for key in corpus corpus_dir $corpus_variables; do echo "$key ${!key-}"; done
}
write_made_from() { made_from | put "$1"; }

# put FILE: writes standard input to FILE, completely or not at all. A FILE with the same content keeps its time.
put() {
  mkdir -p "$(dirname "$1")" && cat > "$1.new"
  if cmp -s "$1.new" "$1"; then rm "$1.new"; else mv "$1.new" "$1"; fi
}

# Fails if --musan-dir or --rirs-dir is not the folder that stage 2 has listed, where the config uses it.
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

# Prints the folders of the models that stage 3 trains for this experiment: its teachers, and the model that it starts from.
trained_first() {
  local start conf teachers
  start=$(starting_model) || return
  find_teachers || return
  for conf in "${teachers[@]}"; do
    if is_conf "$conf"; then teacher_folder "$conf"; fi
  done
  if [ "$start" != "$(setting start_from)" ]; then dirname "$start"; fi
}

# Saves --teacher-set and the stamps of the teachers in the experiment's folder. Experiments share the teacher of one conf,
# so another run may train it again with other settings.
write_asked_for() {
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

# Fails if another run has trained a teacher again since stage 3: the student must not silently learn from that one.
check_asked_for() {
  local folder folders
  folders=$(trained_first) || exit
  while IFS= read -r folder; do
    [ -n "$folder" ] || continue # trained_first printed nothing
    [ -e "$exp/asked_for/teacher_set" ] || die "$folder: run stage 3 first, which trains it or checks that it exists"
    [ ! -e "$folder/.train.stamp" ] || cmp -s "$folder/.train.stamp" "$exp/asked_for/$(basename "$folder").stamp" ||
      die "$folder is not what stage 3 of $name has trained: another run has trained it again since, with another" \
        "--teacher-set or on other data; run stage 3 again, or give the two teachers confs of different names"
  done <<< "$folders"
}
