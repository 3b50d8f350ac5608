"""A SLURM of one machine and a PostgreSQL server that every test of this folder shares."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import postgresql as database
from tests.cluster.slurm import Slurm, why_not


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """A running cluster that sbatch, squeue and so on find, here and in what a test starts."""
    reason = why_not()
    if reason:
        pytest.skip(f"SLURM can't be started here: {reason}")
    with Slurm(cpus=4) as cluster, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(cluster.conf))
        # jobs import the tests' own functions
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        # a node of one machine talks to itself
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        yield cluster


@pytest.fixture(scope="session")
def postgresql() -> Iterator[database.PostgreSQL]:
    """A running server, with a database for everybody."""
    reason = database.why_not()
    if reason:
        pytest.skip(f"PostgreSQL can't be started here: {reason}")
    pytest.importorskip("psycopg", reason="the extra postgresql is not installed")
    with database.PostgreSQL() as server:
        yield server
