"""A Slurm and a Grid Engine of our own on this host, in folders and on ports of their own, for the runners' tests.

The daemons stay children of the tests (no systemd), so that they end with them. Debian's packages are needed:
slurm-wlm, munge, gridengine-master, gridengine-exec, gridengine-client; and root, as whom the daemons start jobs.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.tools.runners import take_signals

ROOT = Path(__file__).resolve().parents[2]
NEEDED = {
    "slurm": "setpriv munged slurmctld slurmd sbatch squeue scancel",
    "gridengine": "setpriv sge_qmaster sge_execd qsub qstat qdel qconf",
}
INIT_CELL = Path("/usr/share/gridengine/scripts/init_cluster")


@dataclass
class Cluster:
    """Daemons, and the environment in which their commands find them."""

    folder: Path
    runner: Path
    cancel: str
    environment: dict[str, str]
    daemons: list[subprocess.Popen] = field(default_factory=list)

    def start(self, *words: str, **environment: str) -> subprocess.Popen:
        # Should the tests be killed, no fixture would end it.
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
                daemon.wait(2)  # Grid Engine's master takes ten, and has nothing to lose
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def ask(self, *words: str) -> str:
        """What a command of the scheduler says, or nothing where it fails."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=20, check=False)
        return done.stdout if done.returncode == 0 else ""

    def change(self, option: str, name: str, text: str) -> None:
        """Give `qconf` a file."""
        file = self.folder / name
        file.write_text(text)
        subprocess.run(
            ["qconf", option, str(file)], env=self.environment, check=True, capture_output=True, text=True, timeout=20
        )

    def popen(self, folder: Path, *words: str) -> subprocess.Popen[str]:
        """Start the runner."""
        pipe = subprocess.PIPE
        command = ["setpriv", "--pdeathsig", "TERM", self.runner, *words]
        return subprocess.Popen(
            command, cwd=folder, env=self.environment, stdout=pipe, stderr=pipe, text=True, preexec_fn=take_signals
        )

    def run(self, folder: Path, *words: str) -> tuple[int, str]:
        """The runner's exit code and messages."""
        process = self.popen(folder, *words)
        try:
            message = process.communicate(timeout=50)[1]
        except subprocess.TimeoutExpired:
            process.terminate()
            message = process.communicate()[1] + "\n(ended by the test: it took too long)"
        return process.returncode, message


def wait_until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait for something that should be true soon."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited for {seconds} s in vain"
        time.sleep(0.05)


def require(name: str) -> None:
    """Skip where this host cannot have the cluster, or was not asked to: its daemons want the host for themselves."""
    if os.environ.get("WESPEAKER_LITE_CLUSTER") != "1":
        pytest.skip(f"a {name} is started only with WESPEAKER_LITE_CLUSTER=1")
    missing = [program for program in NEEDED[name].split() if shutil.which(program) is None]
    if missing:
        pytest.skip(f"no {name} here (missing: {', '.join(missing)})")
    if os.geteuid() != 0:
        pytest.skip(f"{name} is started as root only")


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
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
SlurmdTimeout=5
KillWait=2
NodeName=n1 NodeAddr=127.0.0.1 NodeHostname={host} Port={ports[1]} CPUs=2 RealMemory=1000 State=UNKNOWN
NodeName=n2 NodeAddr=127.0.0.1 NodeHostname={host} Port={ports[2]} CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Slurm with two nodes of two CPUs, without GPUs."""
    require("slurm")
    folder = tmp_path_factory.mktemp("slurm")
    environment = os.environ | {"SLURM_CONF": f"{folder}/slurm.conf"}
    cluster = Cluster(folder, ROOT / "tools/slurm.pl", "scancel", environment)
    (folder / "state").mkdir()
    conf = SLURM_CONF.format(host=socket.gethostname().split(".")[0], folder=folder, ports=free_ports(3))
    (folder / "slurm.conf").write_text(conf)
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    try:
        own = {name: f"{folder}/munge.{name}" for name in ("socket", "pid", "log", "seed")}
        options = [f"--socket={own['socket']}", f"--pid-file={own['pid']}", f"--log-file={own['log']}"]
        cluster.start("munged", "--foreground", "--force", f"--key-file={key}", f"--seed-file={own['seed']}", *options)
        wait_until(Path(own["socket"]).exists)
        cluster.start("slurmctld", "-D", "-c")
        for node in ("n1", "n2"):
            cluster.start("slurmd", "-D", "-c", "-N", node)
        wait_until(lambda: cluster.ask("sinfo", "-h", "-o", "%t %D") == "idle 2\n")
        yield cluster
        cluster.ask("scancel", "--user=root")
        wait_until(lambda: not cluster.ask("squeue", "-h"))
    finally:
        cluster.stop()


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
complex_values NONE
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
    """A table of qconf with other values, which may have gone on over lines that end with a backslash."""
    lines = (line.split(None, 1) for line in table.replace("\\\n", " ").splitlines() if line.strip())
    found = {line[0]: line[1] if len(line) > 1 else "" for line in lines} | values
    return "".join(f"{key} {value}\n" for key, value in found.items())


def make_cell(folder: Path) -> None:
    """The folders of a Grid Engine of its own, as Debian's package makes its own at installation."""
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
    """One host, one queue of two slots, jobs of root, no waits."""
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
    cluster.change("-Aq", "queue", replaced(cluster.ask("qconf", "-sq"), **queue))
    times = {"schedule_interval": "0:0:1", "flush_submit_sec": "1", "flush_finish_sec": "1"}
    cluster.change("-Msconf", "scheduler", replaced(cluster.ask("qconf", "-ssconf"), **times))


@pytest.fixture(scope="session")
def gridengine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Grid Engine with one host of two slots, without the resource gpu."""
    require("gridengine")
    folder = tmp_path_factory.mktemp("gridengine")
    make_cell(folder)
    ports = free_ports(2)
    own = {"SGE_ROOT": f"{folder}/root", "SGE_CELL": "default", "SGE_ND": "1"}
    own |= {"SGE_QMASTER_PORT": str(ports[0]), "SGE_EXECD_PORT": str(ports[1])}
    cluster = Cluster(folder, ROOT / "tools/queue.pl", "qdel", os.environ | own)
    try:
        cluster.start("sge_qmaster")
        wait_until(lambda: cluster.ask("qconf", "-sconf"))
        configure_gridengine(cluster, folder)
        cluster.start("sge_execd")
        wait_until(lambda: "lx" in cluster.ask("qstat", "-f") and " au" not in cluster.ask("qstat", "-f"))
        yield cluster
        cluster.ask("qdel", "-u", "root")
        wait_until(lambda: not cluster.ask("qstat"))
    finally:
        cluster.stop()


@pytest.fixture(params=["slurm", "gridengine"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """One after the other: what both must do alike."""
    return request.getfixturevalue(request.param)
