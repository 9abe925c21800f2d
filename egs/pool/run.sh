#!/usr/bin/env bash
# The recipe of this corpus, as Kaldi's users expect to find it here: the one of the repository, with the corpus named.
set -euo pipefail
here=$(CDPATH='' cd "$(dirname "$0")" && pwd)
exec bash "$here/../../run.sh" --corpus "$(basename "$here")" "$@"
