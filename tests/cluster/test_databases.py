"""A shared search whose study is in PostgreSQL, alone and behind Optuna's gRPC proxy."""

import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from paretopath.errors import StorageError
from paretopath.search import SearchSettings, search
from paretopath.search.databases import open_database
from tests.cluster.postgresql import PostgreSQL
from tests.pipeline.analytic import FormulaEvaluator, FormulaPricer
from tests.pipeline.search.shared_search import PROCESSES, SPACE, SharedSearch, finish, wait_until


def serve(url: str, port: int) -> None:
    """A process that is a gRPC proxy."""
    optuna.storages.run_grpc_proxy_server(open_database(url), host="127.0.0.1", port=port)


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(params=["postgresql", "grpc"])
def url(request: pytest.FixtureRequest, postgresql: PostgreSQL) -> Iterator[str]:
    """A storage of its own for each test."""
    database = postgresql.create_database(f"test_{secrets.token_hex(4)}")
    if request.param == "postgresql":
        yield database
        return
    pytest.importorskip("grpc", reason="the extra grpc is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    proxy = PROCESSES.Process(target=serve, args=(database, port))
    proxy.start()
    wait_until(lambda: accepts(port))
    yield f"grpc://127.0.0.1:{port}"
    proxy.kill()
    proxy.join()


def test_three_workers_one_killed_in_mid_trial_end_with_exactly_the_trials_asked_for(
    tmp_path: Path, url: str
) -> None:
    search = SharedSearch(tmp_path / "run", SearchSettings(trials=50, sampler="random"), url)
    second, first, third = (search.start(*of) for of in (("b", 0.4), ("a", 0.05), ("c", 0.05)))
    lost = search.kill_in_trial(second, "b", after=2)
    finish(first, third)
    search.assert_complete(killed=["b"])
    assert [worker for path, worker in search.events("end") if path == lost][-1] in ("a", "c")


def test_two_runs_share_a_database_and_each_finds_its_own_study(tmp_path: Path, url: str) -> None:
    numbers = {}
    for name, trials in (("one", 9), ("two", 10)):
        study = search(
            SPACE,
            FormulaPricer(SPACE),
            FormulaEvaluator(SPACE),
            SearchSettings(trials=trials),
            run_dir=tmp_path / name / "run",
            storage=url,
        )
        numbers[study.study_name] = len(study.trials)
    assert sorted(numbers.values()) == [9, 10]


def test_a_server_that_is_not_there_is_named_without_its_password(postgresql: PostgreSQL) -> None:
    with pytest.raises(StorageError, match=r"postgresql://me:…@127\.0\.0\.1:1/x can't be used"):
        open_database("postgresql://me:secret@127.0.0.1:1/x")
