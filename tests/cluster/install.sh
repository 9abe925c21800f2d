#!/usr/bin/env bash
# Installs the schedulers that tests/cluster starts, where it can: as root, with apt-get, with a network. Where it cannot
# it says so, and those tests are skipped.
set -euo pipefail

type munged slurmctld slurmd srun sge_qmaster sge_execd qsub &>/dev/null && exit
[ "${WESPEAKER_LITE_CLUSTER:-1}" != 0 ] || exit 0
skipped() {
  echo "tests/cluster/install.sh: no Slurm and Grid Engine for the tests: $*"
  exit 0
}
[ "$EUID" -eq 0 ] || skipped "to install them takes root"
type apt-get &>/dev/null || skipped "there is no apt-get"

work=$(mktemp -d)
policy=/usr/sbin/policy-rc.d # asked by packages whether they may start their daemons
clean_up() {
  rm -rf "$work"
  [ -z "${made_policy:-}" ] || rm -f "$policy"
}
trap clean_up EXIT
if [ ! -e "$policy" ]; then
  made_policy=yes
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
fi
get() {
  DEBIAN_FRONTEND=noninteractive timeout 300 apt-get -q -y -o Acquire::http::Timeout=10 -o Acquire::https::Timeout=10 \
    -o Acquire::Retries=0 -o DPkg::Lock::Timeout=60 "$@" &>"$work/log" </dev/null ||
    skipped "apt-get $1: $(grep '^E:' "$work/log" | tail -n 1)"
}
get update --error-on=any
get install --no-install-recommends slurm-wlm munge gridengine-master gridengine-exec gridengine-client
