#!/usr/bin/env bash
# All checks: bash tests/run.sh [pytest's arguments], such as `tests/tools -k install`.
set -euo pipefail
CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

export WESPEAKER_LITE_EXTRAS="plots test export"
. ./path.sh
bash tests/cluster/install.sh

failed=()
check() {
  "$@" || failed+=("$1 $2")
}

check_perl() {
  local file code=0
  for file in tools/*.p[lm]; do
    perl -c "$file" || code=1
  done
  return "$code"
}

# The files that git knows or would add; all of them where this is no checkout. A deleted one is listed and not there.
listing=$(git -c "safe.directory=$PWD" ls-files -co --exclude-standard -- '*.sh' .ci/run 2>/dev/null) ||
  listing=$(find . \( -name .venv -o -name data -o -name exp \) -prune -o \( -name '*.sh' -o -path ./.ci/run \) -print)
scripts=()
while read -r file; do
  [[ ! -f $file ]] || scripts+=("$file")
done <<<"$listing"

check ruff check .
check ruff format --check .
check shellcheck -x -P SCRIPTDIR -P . "${scripts[@]}"
check check_perl tools
# A file's tests stay together: they share what is costly to make.
check python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --durations 10 "$@"

if [[ ${#failed[@]} -gt 0 ]]; then
  printf 'tests/run.sh: failed: %s\n' "${failed[@]}" >&2
  exit 1
fi
