#!/usr/bin/env bash
# Stage 3: train the teacher that the student's config names (and first its own teacher, if it has one); also its embeddings
# of the training set, where the student learns from those.
set -euo pipefail
. "$(dirname "$0")/common.sh"

teacher=$(setting distill.teacher)
if ! $trained; then say "a trained model is given, no teacher is needed"; exit; fi
if [ -z "$teacher" ]; then say "$config names no teacher, nothing to do"; exit; fi
[ "$(basename "$teacher" .yaml)" != "$(basename "$config" .yaml)" ] || die "$config names itself as its teacher"
say "the teacher of $name is $teacher"
as_teacher=(--corpus "$corpus" --corpus-dir "$corpus_dir" --config "$teacher" --nj "$nj" --cmd "$cmd" --gpu "$gpu")
for change in "${teacher_set[@]}"; do as_teacher+=(--set "$change"); done
bash local/make_fbanks.sh "${as_teacher[@]}" --max-bad "$max_bad" # it may want speeds that its student does not
bash local/train_teacher.sh "${as_teacher[@]}"
bash local/train_student.sh "${as_teacher[@]}"
if [ "$(setting distill.source)" = utterance ]; then
  bash local/extract_embeddings.sh "${as_teacher[@]}" --sets "$(training_set)"
fi
