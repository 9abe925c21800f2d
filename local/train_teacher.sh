#!/usr/bin/env bash
# Stage 3: train what must be there before the student: the teacher that its config names, and the model that it starts
# from (and first what these need in their turn); also the teacher's embeddings of the training set, if it teaches by those.
set -euo pipefail
. "$(dirname "$0")/common.sh"

teacher=$(setting distill.teacher)
start=$(setting start_from)
if ! $trained; then say "a trained model is given, no teacher is needed"; exit; fi
if [ -z "$teacher$start" ]; then say "$config names no teacher, nothing to do${teacher_set[*]:+; --teacher-set changes nothing}"; exit; fi

# train_first CONF [OPTION ...]: leaves in `options` those that train it.
train_first() {
  [ "$(basename "$1" .yaml)" != "$(basename "$config" .yaml)" ] || die "$config needs itself to be trained before"
  options=(--corpus "$corpus" --data-name "$data_name" --config "$1" --nj "$nj" --cmd "$cmd" --gpu "$gpu"
    --processes "$processes" --nodes "$nodes" ${musan_dir:+--musan-dir "$musan_dir"}
    ${rirs_dir:+--rirs-dir "$rirs_dir"} --max-bad "$max_bad" --no-pipes "$no_pipes" "${@:2}")
  for change in "${teacher_set[@]}"; do options+=(--set "$change"); done
  bash local/make_fbanks.sh "${options[@]}" # it may want speeds that its student does not
  if [ "$1" = "$teacher" ]; then rehearse; fi
  bash local/train_teacher.sh "${options[@]}"
  bash local/train_student.sh "${options[@]}"
}

# What would end the student's training, once the teacher has taken hours, is said now.
rehearse() {
  local teacher_exp
  teacher_exp=$(teacher_folder)
  [ -e "$teacher_exp/final.pt" ] ||
    python -m wespeaker_lite.bin.rehearse_kd --student "$exp/config.yaml" --teacher "$teacher_exp/config.yaml"
}

if [ -n "$teacher" ]; then
  say "the teacher of $name is $teacher"
  train_first "$teacher"
  if [ "$(setting distill.source)" = utterance ]; then
    bash local/extract_embeddings.sh "${options[@]}" --sets "$(training_set)"
  fi
fi
if [ "$(starting_model)" != "$start" ]; then
  say "$name starts from $start"
  train_first "$start" --seed "$seed"
fi
leave_asked_for
