"""Starts a Slurm and a Grid Engine on this host for the tests of the runners, with their own folders and ports.

The daemons are children of the tests (without systemd), so that they end with them. This needs Debian's packages
slurm-wlm, munge, gridengine-master, gridengine-exec and gridengine-client, and root, since the daemons start jobs as
root.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.tools.runners import reset_signals

ROOT = Path(__file__).resolve().parents[2]
NEEDED = {
    "slurm": "setpriv munged slurmctld slurmd sbatch squeue scancel srun",
    "gridengine": "setpriv sge_qmaster sge_execd qsub qstat qdel qconf qacct",
}
INIT_CELL = Path("/usr/share/gridengine/scripts/init_cluster")


@dataclass
class Cluster:
    """The daemons, and the environment variables with which their commands find them."""

    folder: Path
    runner: Path
    environment: dict[str, str]
    daemons: list[subprocess.Popen] = field(default_factory=list)

    def start(self, *words: str, **environment: str) -> subprocess.Popen:
        # If the tests are killed, no fixture ends the daemon.
        command = ["setpriv", "--pdeathsig", "KILL", *words]
        with (self.folder / f"{words[0]}.{len(self.daemons)}.out").open("w") as output:
            daemon = subprocess.Popen(
                command, env=self.environment | environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        self.daemons.append(daemon)
        return daemon

    def stop(self) -> None:
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(2)  # Grid Engine's master needs ten, and can be killed safely
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def ask(self, *words: str) -> str:
        """The output of a command of the scheduler, or '' if it fails."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=100, check=False)
        return done.stdout if done.returncode == 0 else ""

    def change(self, option: str, name: str, text: str) -> None:
        """Change a table of Grid Engine by `qconf` with a file."""
        file = self.folder / name
        file.write_text(text)
        subprocess.run(
            ["qconf", option, str(file)], env=self.environment, check=True, capture_output=True, text=True, timeout=100
        )

    @property
    def is_slurm(self) -> bool:
        """Whether it is Slurm; otherwise it is Grid Engine."""
        return self.runner.name == "slurm.pl"

    def cancel_all(self) -> None:
        """Cancel all running and pending jobs."""
        self.ask("scancel", "--user=root") if self.is_slurm else self.ask("qdel", "-u", "root")

    def popen(self, folder: Path, *words: str) -> subprocess.Popen[str]:
        """Start the runner."""
        pipe = subprocess.PIPE
        command = ["setpriv", "--pdeathsig", "TERM", self.runner, *words]
        return subprocess.Popen(
            command, cwd=folder, env=self.environment, stdout=pipe, stderr=pipe, text=True, preexec_fn=reset_signals
        )

    def run(self, folder: Path, *words: str) -> tuple[int, str]:
        """The runner's exit code and messages."""
        process = self.popen(folder, *words)
        try:
            message = process.communicate(timeout=200)[1]
        except subprocess.TimeoutExpired:
            process.terminate()
            message = process.communicate()[1] + "\n(ended by the test: it took too long)"
        return process.returncode, message


def wait_until(condition: Callable[[], object], seconds: float = 100) -> None:
    """Wait until a condition is true, with a long time-out for busy machines."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited for {seconds} s in vain"
        time.sleep(0.05)


def require(name: str) -> None:
    """Skip the test if this host cannot run the scheduler, or is not allowed to."""
    if os.environ.get("WESPEAKER_LITE_CLUSTER") == "0":
        pytest.skip(f"no {name} is started with WESPEAKER_LITE_CLUSTER=0")
    missing = [program for program in NEEDED[name].split() if shutil.which(program) is None]
    if missing:
        pytest.skip(f"no {name} here (missing: {', '.join(missing)}; see tests/cluster/install.sh)")
    if os.geteuid() != 0:
        pytest.skip(f"{name} is started as root only")
    try:
        socket.gethostbyname(socket.gethostname())
    except OSError as error:
        pytest.skip(f"{name} needs a host whose name is known to it: {socket.gethostname()}: {error}")


@contextlib.contextmanager
def starting(cluster: Cluster) -> Iterator[None]:
    """Skip the test, with the daemons' last messages, if they cannot be started, as in some containers.

    With WESPEAKER_LITE_CLUSTER=1 the test fails instead.
    """
    try:
        yield
    except (AssertionError, OSError, subprocess.SubprocessError) as error:
        logs = [*cluster.folder.glob("*.log"), *cluster.folder.glob("*.out"), *cluster.folder.glob("*/messages")]
        ends = [f"{log.name}: {line}" for log in logs for line in log.read_text().splitlines()[-3:]]
        give_up = pytest.fail if os.environ.get("WESPEAKER_LITE_CLUSTER") == "1" else pytest.skip
        give_up("\n".join([f"{cluster.runner.stem}'s daemons do not start here: {error}", *ends]))


def descendants(pid: int) -> list[int]:
    """All children of a process, and their children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [found for child in map(int, children) for found in (child, *descendants(child))]


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in sockets]
    for server in sockets:
        server.close()
    return ports


SLURM_CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CryptoType=crypto/munge
SlurmctldPort={ports[0]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdSpoolDir={folder}/spool.%n
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=100000,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1000
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
ReturnToService=2
SlurmdTimeout=300
MessageTimeout=60
KillWait=5
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=n1 NodeAddr=127.0.0.1 NodeHostname={host} Port={ports[1]} CPUs=2 RealMemory=4000 State=UNKNOWN
NodeName=n2 NodeAddr=127.0.0.1 NodeHostname={host} Port={ports[2]} CPUs=2 RealMemory=4000 Gres=gpu:1 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def start_slurm(cluster: Cluster, folder: Path) -> None:
    """Start a munge, the controller and both nodes."""
    (folder / "state").mkdir()
    conf = SLURM_CONF.format(host=socket.gethostname().split(".")[0], folder=folder, ports=free_ports(3))
    (folder / "slurm.conf").write_text(conf)
    (folder / "gres.conf").write_text("NodeName=n2 Name=gpu File=/dev/null\n")
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    own = {name: f"{folder}/munge.{name}" for name in ("socket", "pid", "log", "seed")}
    options = [f"--socket={own['socket']}", f"--pid-file={own['pid']}", f"--log-file={own['log']}"]
    cluster.start("munged", "--foreground", "--force", f"--key-file={key}", f"--seed-file={own['seed']}", *options)
    wait_until(Path(own["socket"]).exists)
    cluster.start("slurmctld", "-D", "-c")
    for node in ("n1", "n2"):
        cluster.start("slurmd", "-D", "-c", "-N", node)
    wait_until(lambda: cluster.ask("sinfo", "-h", "-o", "%t", "-N") == "idle\nidle\n")


CELL = """\
Version: 6.2
admin_user none
default_domain none
ignore_fqdn false
spooling_method berkeleydb
spooling_lib libspoolb
spooling_params {folder}/spooldb
binary_path /usr/sbin
qmaster_spool_dir {folder}/qmaster
security_mode none
listener_threads 2
worker_threads 2
scheduler_threads 1
"""
EXECUTION_HOST = """\
hostname localhost
load_scaling NONE
complex_values gpu=1,ram_free=4G
user_lists NONE
xuser_lists NONE
projects NONE
xprojects NONE
usage_scaling NONE
report_variables NONE
"""
PARALLEL_ENVIRONMENT = """\
pe_name smp
slots 99
user_lists NONE
xuser_lists NONE
start_proc_args /bin/true
stop_proc_args /bin/true
allocation_rule $pe_slots
control_slaves FALSE
job_is_first_task TRUE
urgency_slots min
accounting_summary FALSE
qsort_args NONE
"""


def replaced(table: str, **values: str) -> str:
    """A table of qconf with some values replaced. Lines of the table may be continued by a backslash."""
    lines = (line.split(None, 1) for line in table.replace("\\\n", " ").splitlines() if line.strip())
    found = {line[0]: line[1] if len(line) > 1 else "" for line in lines} | values
    return "".join(f"{key} {value}\n" for key, value in found.items())


def make_cell(folder: Path) -> None:
    """Make the folders of a new Grid Engine, as Debian's package does at installation."""
    for part in ("root/default/common", "qmaster/job_scripts", "spooldb", "execd"):
        (folder / part).mkdir(parents=True)
    for part in ("bin", "lib", "util", "utilbin"):
        (folder / "root" / part).symlink_to(Path("/var/lib/gridengine") / part)
    common = folder / "root/default/common"
    (common / "bootstrap").write_text(CELL.format(folder=folder))
    (common / "act_qmaster").write_text("localhost\n")
    (common / "host_aliases").write_text(f"localhost {socket.gethostname()}\n")
    subprocess.run(
        ["sh", INIT_CELL, folder / "root", "default", folder / "spooldb", "root"], check=True, capture_output=True
    )


def configure_gridengine(cluster: Cluster, folder: Path) -> None:
    """Configure one host, a queue of two slots and a queue with a GPU, jobs of root, and short intervals."""
    resources = "gpu gpu INT <= YES YES 0 0\nram_free ram MEMORY <= YES YES 0 0\n"
    cluster.change("-Mc", "complex", cluster.ask("qconf", "-sc") + resources)
    conf = cluster.ask("qconf", "-sconf").split("\n", 1)[1]
    own = {"execd_spool_dir": f"{folder}/execd", "min_uid": "0", "min_gid": "0", "shell_start_mode": "unix_behavior"}
    quick = {"reporting_params": "accounting=true reporting=false flush_time=00:00:01 joblog=false sharelog=00:00:00"}
    cluster.change("-Mconf", "global", replaced(conf, **own, **quick))
    cluster.ask("qconf", "-as", "localhost")
    cluster.ask("qconf", "-ah", "localhost")
    cluster.change("-Ae", "host", EXECUTION_HOST)
    cluster.change("-Ahgrp", "hosts", "group_name @allhosts\nhostlist localhost\n")
    cluster.change("-Ap", "smp", PARALLEL_ENVIRONMENT)
    queue = {"qname": "all.q", "hostlist": "@allhosts", "pe_list": "make smp", "slots": "2", "shell": "/bin/bash"}
    queue |= {"shell_start_mode": "unix_behavior", "load_thresholds": "NONE"}
    for own in ({}, {"qname": "g.q", "slots": "1"}):
        cluster.change("-Aq", "queue", replaced(cluster.ask("qconf", "-sq"), **queue | own))
    times = {"schedule_interval": "0:0:1", "flush_submit_sec": "1", "flush_finish_sec": "1"}
    cluster.change("-Msconf", "scheduler", replaced(cluster.ask("qconf", "-ssconf"), **times))


def start_execd(cluster: Cluster) -> None:
    """Start the daemon that runs jobs, and wait until its queues are ready."""
    cluster.start("sge_execd")
    wait_until(lambda: "lx" in cluster.ask("qstat", "-f") and " au" not in cluster.ask("qstat", "-f"))
