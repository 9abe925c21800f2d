# Sourced by local/common.sh: folders that one run at a time works in, or many read.
# shellcheck shell=bash

# lock FOLDER [shared]: hold FOLDER until this process and all that it started have ended. Where another run holds it, say
# which, and wait. `shared` is for reading: many can, but none beside a run that holds the folder for itself. What the script
# that called this one holds is held already. Returns 3 if it had to wait: what was looked at before may have changed.
lock() {
  local folder file how=--exclusive fd waited=0
  folder=$(realpath -m -- "$1")
  case ":${WESPEAKER_LITE_LOCKS-}:" in *":$folder:"*) return ;; esac
  [ "${2-}" != shared ] || how=--shared
  mkdir -p -- "$folder" || exit 1
  file=$folder/.lock
  if [ -w "$file" ] || [[ ! -e $file && -w $folder ]]; then
    exec {fd}>> "$file"
  elif [ "$how" = --exclusive ]; then
    echo "$(basename "$0"): $1 is not writable for $(id -un), and this stage writes to it" >&2
    exit 1
  elif [ -r "$file" ]; then # a folder of another user: flock locks what is open for reading, too
    exec {fd}< "$file"
  else
    echo "$(date '+%Y-%m-%d %H:%M:%S') $(basename "$0" .sh): $1 is read without a lock: it has none, and is not writable"
    return 0
  fi
  if ! flock "$how" --nonblock "$fd"; then
    echo "$(date '+%Y-%m-%d %H:%M:%S') $(basename "$0" .sh): waiting, $1 is in use by $(tail -n 1 "$file")"
    flock "$how" "$fd" || { echo "$(basename "$0"): $1 cannot be locked" >&2 && exit 1; }
    waited=3
  fi
  [ ! -w "$file" ] || echo "process $$ on ${HOSTNAME:-?} since $(date '+%Y-%m-%d %H:%M:%S'): $0" > "$file"
  export WESPEAKER_LITE_LOCKS=${WESPEAKER_LITE_LOCKS-}:$folder
  return "$waited"
}
