# shellcheck shell=bash
# Sets up the environment of every script. Source it: `. ./path.sh`. Programs then run as
# `python -m wespeaker_lite.bin.NAME`.
#
# Uses the active Python if it meets requirements.txt and the extras in WESPEAKER_LITE_EXTRAS. Otherwise uses .venv, or the
# folder in WESPEAKER_LITE_VENV. tools/install.sh creates that folder on first use.

_root=$(CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)

# Prints everything that the choice of a Python depends on. The result is exported, so that only the first script checks.
_python_inputs() {
  echo "$(command -v python || true)" "${WESPEAKER_LITE_VENV-}" "${WESPEAKER_LITE_EXTRAS-}" \
    "$(cat "$_root"/requirements*.txt | cksum)"
}

if [[ ${WESPEAKER_LITE_READY-} != "$(_python_inputs)" ]]; then
  _bin=$("$_root/tools/install.sh" --for-path true) || return 1
  [[ -z $_bin || $PATH == "$_bin":* ]] || export PATH=$_bin:$PATH
  WESPEAKER_LITE_READY=$(_python_inputs)
  export WESPEAKER_LITE_READY
fi

[[ :${PYTHONPATH-}: == *":$_root:"* ]] || export PYTHONPATH=$_root${PYTHONPATH:+:$PYTHONPATH}
export LC_ALL=C # sort, join and Python order keys alike; Python still reads and writes UTF-8
# glibc returns large blocks to the kernel at once, and each page then causes a page fault when it is used again. Training
# small networks on a CPU took up to twice as long. With these values glibc keeps the blocks.
export MALLOC_MMAP_MAX_=${MALLOC_MMAP_MAX_:-0} MALLOC_TRIM_THRESHOLD_=${MALLOC_TRIM_THRESHOLD_:-100000000000}
# Waiting threads must not spin: next to another busy process, torch's threads slow each other down (here by half).
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
unset _root _bin
unset -f _python_inputs
