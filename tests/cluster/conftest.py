"""The fixtures slurm and gridengine, and cluster for both in turn. Each starts once, when a test needs it."""

import os
from collections.abc import Iterator

import pytest

from tests.cluster.schedulers import (
    ROOT,
    Cluster,
    configure_gridengine,
    free_ports,
    make_cell,
    require,
    start_execd,
    start_slurm,
    starting,
    wait_until,
)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Slurm with two nodes of two CPUs each. The second node has a GPU."""
    require("slurm")
    folder = tmp_path_factory.mktemp("slurm")
    environment = os.environ | {"SLURM_CONF": f"{folder}/slurm.conf"}
    cluster = Cluster(folder, ROOT / "tools/slurm.pl", environment)
    try:
        with starting(cluster):
            start_slurm(cluster, folder)
        yield cluster
        cluster.cancel_all()
        wait_until(lambda: not cluster.ask("squeue", "-h"))
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def gridengine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Grid Engine with one host of two slots, and a queue g.q with a GPU."""
    require("gridengine")
    folder = tmp_path_factory.mktemp("gridengine")
    make_cell(folder)
    ports = free_ports(2)
    own = {"SGE_ROOT": f"{folder}/root", "SGE_CELL": "default", "SGE_ND": "1"}
    own |= {"SGE_QMASTER_PORT": str(ports[0]), "SGE_EXECD_PORT": str(ports[1])}
    cluster = Cluster(folder, ROOT / "tools/queue.pl", os.environ | own)
    try:
        with starting(cluster):
            cluster.start("sge_qmaster")
            wait_until(lambda: cluster.ask("qconf", "-sconf"))
            configure_gridengine(cluster, folder)
            start_execd(cluster)
        yield cluster
        cluster.cancel_all()
        wait_until(lambda: not cluster.ask("qstat"))
    finally:
        cluster.stop()


@pytest.fixture(params=["slurm", "gridengine"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """Both schedulers, one after the other, for what works the same with both."""
    return request.getfixturevalue(request.param)
