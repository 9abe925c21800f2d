# shellcheck shell=bash
# The environment of every script, sourced: `. ./path.sh`. Programs are then found by their names and as
# `python -m wespeaker_lite.bin.NAME`.
#
# The active Python serves if it meets requirements.txt (and the extras in WESPEAKER_LITE_EXTRAS); else .venv does, or the
# folder named by WESPEAKER_LITE_VENV, which tools/install.sh makes the first time.

_root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)

# All that the choice of a Python depends on. It goes to the scripts that a script starts, so that only the first one looks.
_basis() {
  echo "$(command -v python || true)" "${WESPEAKER_LITE_VENV-}" "${WESPEAKER_LITE_EXTRAS-}" \
    "$(cat "$_root"/requirements*.txt | cksum)"
}

if [[ ${WESPEAKER_LITE_READY-} != "$(_basis)" ]]; then
  _bin=$("$_root/tools/install.sh" --for-path true) || return 1
  [[ -z $_bin || $PATH == "$_bin":* ]] || export PATH=$_bin:$PATH
  WESPEAKER_LITE_READY=$(_basis)
  export WESPEAKER_LITE_READY
fi

[[ :${PYTHONPATH-}: == *":$_root:"* ]] || export PYTHONPATH=$_root${PYTHONPATH:+:$PYTHONPATH}
export LC_ALL=C # one order of keys for sort, join and Python; Python then reads and writes UTF-8 all the same
# glibc gives large blocks back to the kernel at once, and each page comes back by a fault: training small networks on a
# CPU took up to twice as long. With these it keeps them.
export MALLOC_MMAP_MAX_=${MALLOC_MMAP_MAX_:-0} MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-100000000000}
# Threads that wait must not spin: beside another busy process torch's otherwise hold each other up (here by half).
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
unset _root _bin
unset -f _basis
