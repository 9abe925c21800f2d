#!/usr/bin/env bash
# Starts a Python program as processes that train together: launch.sh NODES PROCESSES -m MODULE [ARGUMENT...]
# PROCESSES are those of each node. Several nodes are those of a job of Slurm: each gets a torchrun, which meet on the
# node where this runs, at a port of the job's own.
set -euo pipefail
nodes=$1 processes=$2
shift 2

# Without the variable, restarted ranks are given the addresses of dead ones (pytorch issue 135712).
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
# Ranks are in process groups of their own: torchrun passes on to them what asks a job to stop.
export TORCHELASTIC_SIGNALS_TO_HANDLE=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2
export PET_SIGNALS_TO_HANDLE=$TORCHELASTIC_SIGNALS_TO_HANDLE # where torchrun has an option for it
torchrun=(python -m torch.distributed.run --nnodes "$nodes" --nproc-per-node "$processes" --max-restarts 1)
if [ "$nodes" -eq 1 ]; then exec "${torchrun[@]}" --standalone "$@"; fi

if [ "${SLURM_JOB_NUM_NODES:-1}" -ne "$nodes" ]; then
  echo "launch.sh: this job has ${SLURM_JOB_NUM_NODES:-1} nodes of Slurm, not $nodes: see 'nodes' in conf/slurm.conf" >&2
  exit 1
fi
# srun takes a step's CPUs not from the job's option, but from this variable.
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK; fi
# ALL: else it takes what sbatch was told to take, PATH.
exec srun --export=ALL --ntasks "$nodes" --ntasks-per-node 1 --kill-on-bad-exit=1 "${torchrun[@]}" \
  --rdzv-backend c10d --rdzv-endpoint "$(hostname):$((20000 + SLURM_JOB_ID % 10000))" --rdzv-id "$SLURM_JOB_ID" "$@"
