"""A real PostgreSQL server of one's own, on a loopback port. Debian's package ``postgresql``."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

START_S = 30.0
_USER = "paretopath"


def binaries() -> Path | None:
    """The folder of ``initdb`` and ``postgres``; None if they are not installed."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    whole = (f for f in folders if (f / "initdb").is_file() and (f / "postgres").is_file())
    return next(whole, None)


def why_not() -> str | None:
    """Why a server can't be started here; None if it can."""
    if binaries() is None:
        return "there is no initdb (Debian's package postgresql)"
    if os.getuid() == 0 and _unprivileged() is None:
        return "PostgreSQL refuses to run as root, and there is no user postgres or nobody"
    return None


class PostgreSQL:
    """A server with one database, gone when the context ends."""

    def __enter__(self) -> Self:
        folder = binaries()
        assert folder is not None
        self._home = Path(tempfile.mkdtemp(prefix="postgresql-"))
        user = _unprivileged() if os.getuid() == 0 else None
        self._as: dict[str, Any] = {"cwd": self._home}
        if user is not None:
            os.chown(self._home, user.pw_uid, user.pw_gid)
            self._as |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        data = self._home / "data"
        self._run(folder / "initdb", "-D", data, "-U", _USER, "-A", "trust", "-E", "UTF8")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self._port,
            "unix_socket_directories": self._home,
        }
        arguments = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with (self._home / "log").open("wb") as log:
            self._server = subprocess.Popen(
                [folder / "postgres", "-D", data, *arguments], stdout=log, stderr=log, **self._as
            )
        self._wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.send_signal(signal.SIGINT)  # does not wait for clients to leave
        self._server.wait(START_S)
        shutil.rmtree(self._home, ignore_errors=True)

    @property
    def url(self) -> str:
        """Of the database."""
        return f"postgresql://{_USER}@127.0.0.1:{self._port}/postgres"

    def create_database(self, name: str) -> str:
        """The URL of a new, empty database."""
        import psycopg

        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return self.url.removesuffix("postgres") + name

    def _run(self, *command: Any) -> None:
        done = subprocess.run([*command], capture_output=True, text=True, **self._as)
        assert done.returncode == 0, done.stderr

    def _wait(self) -> None:
        import psycopg

        end = time.monotonic() + START_S
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                log = (self._home / "log").read_text(errors="replace")
                assert self._server.poll() is None and time.monotonic() < end, log
                time.sleep(0.1)


def _unprivileged() -> pwd.struct_passwd | None:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None
