# Sourced by common.sh: runs jobs by --cmd, and waits for their outputs.
# shellcheck shell=bash disable=SC2034,SC2154  # what is set here is used where this is sourced, and the other way round

# split_for_jobs SET_DIR OUT: splits a set into OUT/1, OUT/2 ... and sets `jobs` to the number of parts: nj, or fewer for a
# small set.
split_for_jobs() {
  rm -rf "$2"
  python -m wespeaker_lite.bin.data_dir split "$1" "$nj" "$2" --per-utt --at-most
  jobs=$(find "$2" -mindepth 1 -maxdepth 1 -type d | wc -l)
}

# wait_for_outputs FILE: waits until the files of all jobs are visible here, since a file server may show files of other machines
# late. JOB in FILE stands for the number of a job. Sets the array `job_outputs` to the files, in the order of the jobs.
wait_for_outputs() {
  local number file second
  job_outputs=()
  for ((number = 1; number <= ${jobs:-1}; number++)); do
    file=${1//JOB/$number}
    for ((second = 0; second < 90; second++)); do
      ls "$(dirname "$file")" &> /dev/null || true # makes NFS read the folder again
      [ ! -e "$file" ] || break
      sleep 1
    done
    [ -e "$file" ] || die "$file is missing, although its job succeeded"
    job_outputs+=("$file")
  done
}

# run_jobs WORD...: runs the job runner that --cmd names with these arguments. Kaldi's own runners do not quote words
# without spaces. So for a runner that is not in tools/, words with special characters of bash are an error.
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

# follow LOG PATTERN COMMAND...: runs a job that writes LOG, and prints the lines that match while it runs: it may take hours.
follow() {
  local log=$1 pattern=$2 code=0 tail_pid
  shift 2
  mkdir -p "$(dirname "$log")" && : > "$log"
  tail --pid=$$ -n +1 -F "$log" 2> /dev/null > >(grep --line-buffered -E "$pattern") &
  tail_pid=$!
  "$@" || code=$?
  sleep 0.2 # tail must read the last lines
  kill "$tail_pid" 2> /dev/null || true
  return "$code"
}
