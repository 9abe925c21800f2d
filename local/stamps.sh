# Sourced by common.sh: reads and writes the stamps of finished stages.
# shellcheck shell=bash disable=SC2034,SC2154  # what is set here is used where this is sourced, and the other way round

# Takes a shared lock on the data. After a wait, checks again that they were made from the given corpus.
lock_for_reading() { lock "$data" shared || check_made_from; }

# fresh STAMP INPUTS...: succeeds, with a message, if STAMP matches these inputs. A missing input ends the stage.
fresh() {
  local code=0
  stamp_and_inputs=("$@")
  python -m wespeaker_lite.bin.stamp check "$@" || code=$?
  # Data that experiments share are written by one run at a time, while no other reads them. After a wait, check again.
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
# stamp OUTPUTS... [--editable OUTPUTS...]: writes the stamp of the last call of `fresh`.
stamp() { python -m wespeaker_lite.bin.stamp write "${stamp_and_inputs[@]}" --outputs "$@"; }

# find_files WORD...: sets the array `files` to the output of `find`. Fails if `find` does, which bash ignores inside <( ).
find_files() {
  local lines
  lines=$(find "$@") || die "find $* failed"
  [ -n "$lines" ] || die "find $*: there is none"
  mapfile -t files <<< "$lines"
}
