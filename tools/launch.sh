#!/usr/bin/env bash
# Starts a Python program as processes that train together: launch.sh NODES PROCESSES -m MODULE [ARGUMENT...]
# PROCESSES is the number per node. Several nodes need a Slurm job: srun starts a torchrun on each node, and all connect to
# this node, at a port that is computed from the number of the job.
set -euo pipefail
nodes=$1 processes=$2
shift 2

# Without it, restarted ranks get the addresses of dead ones (pytorch issue 135712).
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
# Ranks have their own process groups, so torchrun must forward stop signals to them.
export TORCHELASTIC_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2
export PET_SIGNALS_TO_HANDLE=$TORCHELASTIC_SIGNALS_TO_HANDLE # where torchrun has an option for it
torchrun=(python -m torch.distributed.run --nnodes "$nodes" --nproc-per-node "$processes" --max-restarts 1)
if [ "$nodes" -eq 1 ]; then exec "${torchrun[@]}" --standalone "$@"; fi

if [ "${SLURM_JOB_NUM_NODES:-1}" -ne "$nodes" ]; then
  echo "launch.sh: this job has ${SLURM_JOB_NUM_NODES:-1} nodes of Slurm, not $nodes: see 'nodes' in conf/slurm.conf" >&2
  exit 1
fi
# srun ignores the job's number of CPUs, and reads it from this variable.
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; fi
# ALL: otherwise srun exports what sbatch exported, only PATH.
exec srun --export=ALL --ntasks "$nodes" --ntasks-per-node 1 --kill-on-bad-exit=1 "${torchrun[@]}" \
  --rdzv-backend c10d --rdzv-endpoint "$(hostname):$((20000 + SLURM_JOB_ID % 10000))" --rdzv-id "$SLURM_JOB_ID" "$@"
