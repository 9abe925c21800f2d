#!/usr/bin/env bash
# The staged recipe, one for all corpora: lists, fbanks, teacher, student by KD, embeddings, scores, report. See --help.
set -euo pipefail
. "$(dirname "$0")/local/common.sh"

stages=(get_corpus make_lists make_fbanks train_teacher train_student extract_embeddings score report export)
if [ "$stage" -lt 0 ] || [ "$stop_stage" -ge "${#stages[@]}" ] || [ "$stage" -ge "${#stages[@]}" ]; then
  die "there are stages 0 to $((${#stages[@]} - 1)); asked for: $stage to $stop_stage"
fi
if [ "$stage" -gt "$stop_stage" ]; then die "--stage $stage is after --stop-stage $stop_stage: nothing to do"; fi
if [ -n "$sets" ] && { [ "$stage" -gt 5 ] || [ "$stop_stage" -lt 5 ]; }; then
  die "--sets is of stage 5, which is not run here"
fi
echo "$0 ${ARGUMENTS[*]}"
for ((number = stage; number <= stop_stage; number++)); do
  say "stage $number: ${stages[number]}"
  if [ "${stages[number]}" = export ] && [ "$stage" -lt "$number" ] && ! missing=$(missing_for_export); then
    say "skipped, since it was not asked for alone: $missing"
    continue
  fi
  code=0
  (cd "$CALLER_DIR" && bash "$ROOT/local/${stages[number]}.sh" "${ARGUMENTS[@]}") || code=$?
  if [ "$code" -ne 0 ]; then
    die "stage $number (${stages[number]}) failed; what is done is kept: fix the cause above, then the same command resumes from there"
  fi
done
