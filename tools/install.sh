#!/usr/bin/env bash
# Installs what requirements.txt and the extras name; path.sh calls it at the start of every script.
# Standard output is for path.sh alone; what a person should read goes to standard error.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

extras="plots"
for_path=false
help_message='Usage: tools/install.sh [--extras "plots test"]

    tools/install.sh                          # what the recipe needs, and what draws its pictures
    tools/install.sh --extras "plots test"    # and what tests/run.sh needs
    tools/install.sh --extras peers           # the weights of a network that others trained (81 MB)

Installs into the active Python if that meets requirements.txt, else into .venv, or the folder that the variable
WESPEAKER_LITE_VENV names, which is made. Run again, it finishes or skips what is there. An extra is a file
requirements-EXTRA.txt.

  --extras "NAMES"  what to install besides requirements.txt (default: "plots")
  --for-path true   for path.sh: change no Python but the folder; print its bin folder if it is to be used'
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
    [[ -f requirements-$extra.txt ]] || fail "there is no extra '$extra', but $(echo requirements-*.txt)"
    [[ " ${files[*]} " == *" requirements-$extra.txt "* ]] || files+=("requirements-$extra.txt")
  done
}

# What stands in the mark of a finished folder: its Python, its place (programs in bin/ know it), the files it meets.
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
  fail "Python 3.11 or newer is needed, and $(python3 -V 2>&1 || true) is what python3 gives: install one"
}

create_venv() {
  local python
  python=$(find_python)
  say "making $venv with $python (once; torch is large: up to 6 GB)"
  "$python" -I -m venv --clear "$venv"
}

# Whether the folder is worth finishing: it has a pip that runs, and was neither moved nor left by its Python.
is_usable() {
  "$venv/bin/python" -I -m pip --version >/dev/null 2>&1 || return 1
  if [[ -f $mark ]]; then
    grep -qxF "at $venv" "$mark" && grep -qxF "$("$venv/bin/python" -V)" "$mark"
  fi
}

# pip takes a package that was cut short for installed if its metadata is there; the RECORD is written last.
drop_cut_packages() {
  local site info
  site=$("$venv/bin/python" -I -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  for info in "$site"/*.dist-info; do
    [[ ! -d $info || -f $info/RECORD ]] || rm -r -- "$info"
  done
}

# Of pip's output, a line for each package that comes: its file and size.
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

# -I: what PYTHONPATH or the user's own site folder holds is not in the environment, and must not count as installed.
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

# Of the peers only the files are wanted: laid apart, so that neither code nor dependencies of theirs come in.
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
  # The extras that were asked for before stay, where the folder must be made again as well.
  [[ ! -f $mark ]] || choose_files "$extras" "$(sed -n 's/.*requirements-\(.*\)\.txt/\1/p' "$mark")"
  is_usable || { create_venv; made=true; }
  rm -f -- "$mark"
  drop_cut_packages
  install_files "$venv/bin/python" "${files[@]}"
  if ! "$venv/bin/python" -I tools/requirements.py --import requirements.txt >&2; then
    ! $made || fail "the packages above were installed and do not work here; see $venv"
    say "a package in $venv is broken: making it again"
    create_venv
    install_files "$venv/bin/python" "${files[@]}"
    "$venv/bin/python" -I tools/requirements.py --import requirements.txt >&2 || fail "see above; the folder is $venv"
  fi
  mark_lines >"$mark.part"
  mv -- "$mark.part" "$mark"
  say "$venv is ready"
}

# Whether the active Python meets the files given. The folder's own does not count: its mark is to be looked at.
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
  # pip inherits the lock: should this script be killed alone, the next still waits for that pip to end.
  exec {lock}>"$venv.lock"
  flock -n "$lock" || { say "waiting for another installation into $venv"; flock "$lock"; }
  is_finished || finish_venv
fi
! $for_path || echo "$venv/bin"
