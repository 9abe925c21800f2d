# Sourced by common.sh: running jobs by --cmd, and what they leave.
# shellcheck shell=bash disable=SC2034,SC2154  # what is set here is used where this is sourced, and the other way round

# split_for_jobs SET_DIR OUT: parts OUT/1, OUT/2 ... for the jobs, and their number in `jobs`: nj, or fewer for a small set.
split_for_jobs() {
  rm -rf "$2"
  python -m wespeaker_lite.bin.data_dir split "$1" "$nj" "$2" --per-utt --at-most
  jobs=$(find "$2" -mindepth 1 -maxdepth 1 -type d | wc -l)
}

# arrived FILE: wait until the files of all jobs, whose number stands for JOB, are seen here; a file server may show late what
# was made on other machines. They come in the array `arrivals`, numbers in order.
arrived() {
  local number file second
  arrivals=()
  for ((number = 1; number <= ${jobs:-1}; number++)); do
    file=${1//JOB/$number}
    for ((second = 0; second < 90; second++)); do
      ls "$(dirname "$file")" &> /dev/null || true # which makes NFS look again
      [ ! -e "$file" ] || break
      sleep 1
    done
    [ -e "$file" ] || die "$file: the job that makes it has ended well, but it is not there"
    arrivals+=("$file")
  done
}

# run_jobs WORD...: what --cmd names, with these words. Kaldi's own runners give bash a word without spaces as it stands:
# a runner that is not one of ours gets only words in which bash finds nothing to do.
run_jobs() {
  local runner word
  read -rd "" -a runner <<< "$cmd" || true
  if [ ! "$(dirname -- "${runner[0]}")" -ef tools ]; then
    for word; do
      [[ $word =~ ^[[:alnum:]_./:=,+@%-]*$ ]] || die "--cmd ${runner[0]} cannot be given '$word': rename it, or use tools/*.pl"
    done
  fi
  "${runner[@]}" "$@"
}

# follow LOG PATTERN COMMAND...: run a job whose output goes to LOG, and show here what matches, since it may take hours.
follow() {
  local log=$1 pattern=$2 code=0 tail_pid
  shift 2
  mkdir -p "$(dirname "$log")" && : > "$log"
  tail --pid=$$ -n +1 -F "$log" 2> /dev/null > >(grep --line-buffered -E "$pattern") &
  tail_pid=$!
  "$@" || code=$?
  sleep 0.2 # for tail to read the last lines
  kill "$tail_pid" 2> /dev/null || true
  return "$code"
}
