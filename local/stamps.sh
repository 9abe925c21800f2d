# Sourced by common.sh: what is done already, by the stamps that stages leave.
# shellcheck shell=bash disable=SC2034,SC2154  # what is set here is used where this is sourced, and the other way round

# Reads the data beside others; who had to wait looks again whether they are still those of the corpus that is meant.
lock_for_reading() { lock "$data" shared || check_made_from; }

# fresh STAMP INPUTS...: true, and says so, where STAMP was left by the same inputs; an input that is not there ends the stage.
fresh() {
  local code=0
  stamp_and_inputs=("$@")
  python -m wespeaker_lite.bin.stamp check "$@" || code=$?
  # What experiments share is made by one of them at a time, and while none reads it; who had to wait looks again.
  if [ "$code" -eq 3 ] && [[ $1 == "$data"/* ]] && ! lock "$data"; then
    code=0
    check_made_from
    python -m wespeaker_lite.bin.stamp check "$@" || code=$?
  fi
  [ "$code" -ne 3 ] || rm -f -- "$1" # a stale stamp must not outlive a stage that fails
  [ "$code" -eq 0 ] || [ "$code" -eq 3 ] || exit "$code"
  [ "$code" -ne 0 ] || say "done already ($1)"
  return "$code"
}
# stamp OUTPUTS... [--editable OUTPUTS...]: leave the stamp that `fresh` was last asked about.
stamp() { python -m wespeaker_lite.bin.stamp write "${stamp_and_inputs[@]}" --outputs "$@"; }

# find_files WORD...: what `find` prints, in the array `files`. Bash does not tell when a program in <( ) fails.
find_files() {
  local lines
  lines=$(find "$@") || die "find $* failed"
  [ -n "$lines" ] || die "find $*: there is none"
  mapfile -t files <<< "$lines"
}
