# Sourced by local/common.sh: locks on folders, exclusive for writing and shared for reading.
# shellcheck shell=bash

# lock FOLDER [shared]: locks FOLDER until this process and all its children have ended. If another run holds the lock, prints
# which one and waits. Many runs can hold a `shared` lock, but not beside an exclusive one. A lock that the calling script
# holds counts. Returns 3 after a wait: files that were checked before may have changed.
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
    echo "$(basename "$0"): this stage writes to $1, which is not writable for $(id -un)" >&2
    exit 1
  elif [ -r "$file" ]; then # a folder of another user: flock can also lock a file that is open for reading
    exec {fd}< "$file"
  else
    echo "$(date '+%Y-%m-%d %H:%M:%S') $(basename "$0" .sh): reading $1 without a lock: the folder is not writable"
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
