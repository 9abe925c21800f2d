#!/usr/bin/env bash
# The recipe in stages, the same for all corpora: lists, fbanks, teacher, student by KD, embeddings, scores, report. See --help.
set -euo pipefail
. "$(dirname "$0")/local/common.sh"

stages=(get_corpus make_lists make_fbanks train_teacher train_student extract_embeddings score report export)
if [ "$stage" -lt 0 ] || [ "$stop_stage" -ge "${#stages[@]}" ] || [ "$stage" -ge "${#stages[@]}" ]; then
  die "there are stages 0 to $((${#stages[@]} - 1)); asked for: $stage to $stop_stage"
fi
if [ "$stage" -gt "$stop_stage" ]; then die "--stage $stage is after --stop-stage $stop_stage: nothing to do"; fi
if [ -n "$sets" ] && { [ "$stage" -gt 5 ] || [ "$stop_stage" -lt 5 ]; }; then
  die "--sets applies to stage 5, which is not run here"
fi
echo "$0 ${ARGUMENTS[*]}"
for ((number = stage; number <= stop_stage; number++)); do
  say "stage $number: ${stages[number]}"
  if [ "${stages[number]}" = export ] && [ "$stage" -lt "$number" ] && ! missing=$(missing_for_export); then
    say "skipped: $missing"
    continue
  fi
  code=0
  (cd "$CALLER_DIR" && bash "$ROOT/local/${stages[number]}.sh" "${ARGUMENTS[@]}") || code=$?
  if [ "$code" -ne 0 ]; then
    die "stage $number (${stages[number]}) failed: fix the cause above and run the same command again; finished work is kept"
  fi
done
