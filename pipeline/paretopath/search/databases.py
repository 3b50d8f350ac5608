"""Databases that hold a study: how each is opened so that many workers can share it.

SQLAlchemy takes a second to import, and most searches have no database.
"""

import random
import time
import warnings
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import optuna
from optuna.storages import BaseStorage, get_storage

from paretopath.errors import MissingExtraError, StorageError
from paretopath.recipe.storage_url import check_url

if TYPE_CHECKING:
    import sqlalchemy
    from optuna.storages import RDBStorage

GRPC_PORT = 13000  # Optuna's own
_WAIT_SECONDS = 60  # for a connection that another thread holds, or for SQLite's lock
_ATTEMPTS = 3  # workers that start together on an empty database all try to make its tables
_READY_SECONDS = 20  # for a gRPC proxy to answer
# Optuna's check of its tables takes a second connection while it has one. Then a worker has one,
# which its threads share, so that 64 of them fit into PostgreSQL's usual limit of 100. The server
# notices a dead one by keepalives rather than after two hours.
_CHECK = {"pool_size": 1, "max_overflow": 1}
_ONE = {"pool_size": 1, "max_overflow": 0, "pool_timeout": _WAIT_SECONDS}
_KEEPALIVES = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}


def open_database(url: str) -> BaseStorage:
    """An Optuna storage for a URL.

    Args:
        url: ``postgresql://USER@HOST/DATABASE``, ``sqlite:///FILE``, ``mysql+DRIVER://…`` or
            ``grpc://HOST:PORT``, an Optuna gRPC storage proxy. A password for PostgreSQL belongs in
            ``~/.pgpass`` or ``PGPASSWORD``.

    Raises:
        InvalidValueError: not such a URL.
        StorageError: the database can't be reached.
        MissingExtraError: its driver is not installed.
    """
    from sqlalchemy.exc import SQLAlchemyError

    scheme = check_url(url)
    openers = {"grpc": _grpc, "sqlite": _sqlite, "postgresql": _postgresql}
    try:
        for _ in range(_ATTEMPTS - 1):
            try:
                return openers.get(scheme, get_storage)(url)
            except (SQLAlchemyError, optuna.exceptions.StorageInternalError):
                time.sleep(random.uniform(0.2, 1.0))  # another worker is making the tables
        return openers.get(scheme, get_storage)(url)
    except ImportError as error:
        extra = f"the extra {scheme}" if scheme in ("postgresql", "grpc") else "a driver"
        hint = f": pip install 'paretopath[{scheme}]'" if extra.startswith("the") else ""
        raise MissingExtraError(f"{shown(url)} needs {extra}{hint} ({error})") from error
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, ConnectionError) as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0]
        raise StorageError(f"{shown(url)} can't be used: {reason}") from error


def absolute(url: str) -> str:
    """The URL with an SQLite file's whole name, so that it holds in every working directory."""
    if url.startswith("sqlite:///"):
        return f"sqlite:///{Path(url.removeprefix('sqlite:///')).absolute()}"
    return url


def is_absent_file(url: str) -> bool:
    """Whether the URL names an SQLite file that does not exist; opening it would make it."""
    return url.startswith("sqlite:///") and not Path(absolute(url)[len("sqlite:///") :]).exists()


def shown(url: str) -> str:
    """A URL as it may be shown: without its password."""
    password = urlsplit(url).password
    return url.replace(f":{password}@", ":…@") if password else url


def _postgresql(url: str) -> BaseStorage:
    options: dict[str, Any] = {"pool_pre_ping": True, "connect_args": _KEEPALIVES}
    address = "postgresql+psycopg://" + url.partition("://")[2]
    return get_storage(_checked(address, options))  # type: ignore[arg-type]


def _checked(url: str, options: dict[str, Any]) -> "RDBStorage":
    """A storage of one connection, its tables made and checked."""
    from optuna.storages import RDBStorage

    RDBStorage(url, {**_CHECK, **options}).engine.dispose()
    return RDBStorage(
        url, {**_ONE, **options}, skip_compatibility_check=True, skip_table_creation=True
    )


def _sqlite(url: str) -> BaseStorage:
    """SQLite whose transactions take the write lock when they begin.

    As Python's driver has it, a transaction reads before it locks, so two workers can both see a
    trial as waiting, and the second of two that both want to write fails at once.
    """
    from sqlalchemy import event

    storage = _checked(url, {"connect_args": {"timeout": _WAIT_SECONDS}})

    @event.listens_for(storage.engine, "connect")
    def _no_implicit_begin(connection: Any, _: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(storage.engine, "begin")
    def _lock(connection: "sqlalchemy.Connection") -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    storage.engine.dispose()  # connections from before know none of this
    return get_storage(storage)  # type: ignore[arg-type]


def _grpc(url: str) -> BaseStorage:
    import_module("grpc")  # Optuna does it late, and its message names no extra
    from optuna.storages import GrpcStorageProxy

    address = urlsplit(url)
    assert address.hostname  # check_url has seen it
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        proxy = GrpcStorageProxy(host=address.hostname, port=address.port or GRPC_PORT)
    proxy.wait_server_ready(timeout=_READY_SECONDS)
    return proxy
