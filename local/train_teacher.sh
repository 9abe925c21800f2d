#!/usr/bin/env bash
# Stage 3: trains what the student needs: its teachers, the model that it starts from, and first what these need themselves.
# With `source: utterance` it also extracts the teachers' embeddings of the training set.
set -euo pipefail
. "$(dirname "$0")/common.sh"
. local/beforehand.sh

find_teachers
start=$(setting start_from)
if ! $trained; then say "a trained model is given, no teacher is needed"; exit; fi
if [ -z "${teachers[*]}$start" ]; then say "$config names no teacher, nothing to do${teacher_set[*]:+; --teacher-set changes nothing}"; exit; fi

common_options=(--corpus "$corpus" --data-name "$data_name" --nj "$nj" --cmd "$cmd" --gpu "$gpu"
  --processes "$processes" --nodes "$nodes" ${musan_dir:+--musan-dir "$musan_dir"} ${rirs_dir:+--rirs-dir "$rirs_dir"}
  --max-bad "$max_bad" --no-pipes "$no_pipes")
teacher_changes=()
for change in "${teacher_set[@]}"; do teacher_changes+=(--set "$change"); done

# Find settings that would stop the student's training or scoring now, not after hours of training others.
given=()
for teacher in "${teachers[@]}"; do
  if [ -n "$teacher" ] && ! is_conf "$teacher"; then given+=(--teacher "$teacher"); fi
done
unset -v teacher
if [ -n "$start" ] && ! is_conf "$start"; then given+=(--start-from "$start"); fi
check_settings before "${given[@]}"

# train_first CONF [OPTION ...]: trains a conf, and sets `options` to those that it used.
train_first() {
  [ "$(basename "$1" .yaml)" != "$(basename "$config" .yaml)" ] || die "$config names itself as teacher or start_from"
  options=("${common_options[@]}" --config "$1" "${@:2}" "${teacher_changes[@]}" --stop-stage 4) # it is not scored
  bash local/make_fbanks.sh "${options[@]}" # it may need speeds that its student does not
  if [ "$1" = "${teacher-}" ]; then
    check_teacher
  else
    check_settings start --start-from "$(dirname "$(starting_model)")/config.yaml"
  fi
  bash local/train_teacher.sh "${options[@]}"
  bash local/train_student.sh "${options[@]}"
}

# Finds a mismatch between student and teacher now, not after hours of training the teacher.
check_teacher() {
  local teacher_exp
  teacher_exp=$(teacher_folder "$teacher")
  [ -e "$teacher_exp/final.pt" ] ||
    python -m wespeaker_lite.bin.check_kd --student "$exp/config.yaml" --teacher "$teacher_exp/config.yaml"
}

# Check all teachers before the first is trained.
for teacher in "${teachers[@]:1}"; do
  if is_conf "$teacher"; then
    bash local/make_fbanks.sh "${common_options[@]}" --config "$teacher" "${teacher_changes[@]}"
    check_teacher
  fi
done
for teacher in "${teachers[@]}"; do
  say "the teacher of $name is $teacher"
  if is_conf "$teacher"; then
    train_first "$teacher"
  else
    options=("${common_options[@]}" --model "$teacher")
    bash local/make_fbanks.sh "${options[@]}"
  fi
  if [ "$(setting distill.source)" = utterance ]; then
    folder=$(teacher_folder "$teacher")
    features=$(features_of "$folder") || exit
    # The teacher embeds the student's training set with its copies. It may have another front end than the student.
    [ "$features" = "$(setting features)" ] ||
      (cd "$CALLER_DIR" && bash "$ROOT/local/make_fbanks.sh" "${ARGUMENTS[@]}" --front-end "$ROOT/$folder")
    bash local/extract_embeddings.sh "${options[@]}" --sets "$(training_set)"
  fi
done
unset -v teacher
if [ "$(starting_model)" != "$start" ]; then
  say "$name starts from $start"
  train_first "$start" --seed "$seed"
fi
write_asked_for
