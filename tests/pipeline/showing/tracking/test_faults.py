"""Jobs that go on whatever W&B does."""

import http.server
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paretopath.showing.report import ReportRun
from paretopath.showing.tracking import WandbTracking
from paretopath.showing.tracking.mode import answers
from tests.pipeline.showing.tracking.tracked import WHOLE_S, objective_of, opening_of
from tests.pipeline.showing.wandb_file import read_run, read_runs


class Server:
    """A local server that misbehaves.

    ``hang`` never answers, ``500`` always does so, ``half`` answers until a run is about to begin.
    """

    def __init__(self, manner: str) -> None:
        self.asked: list[str] = []
        self._released = threading.Event()
        asked, released = self.asked, self._released

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                asked.append(body)
                if manner == "hang" or (manner == "half" and "__typename" not in body):
                    released.wait(120)
                self.send_response(500 if manner == "500" else 200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(params=["hang", "500", "half", "refuse"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param == "refuse":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        yield f"http://127.0.0.1:{port}"
        return
    server = Server(request.param)
    yield server.address
    server.close()


def test_a_server_that_fails_makes_the_runs_offline(
    address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", address)
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    tracking = WandbTracking(opening_of(tmp_path, mode="auto", init_s=2.0))
    tracker = tracking.start("retrain", "shared-3f2a", config={"a": 1})
    for epoch in range(5):
        tracker.log({"loss": 1.0}, step=epoch)
    tracking.close()
    assert tracking.wait(WHOLE_S)
    (found,) = read_runs(tmp_path)
    assert len(found.history) == 5
    assert found.exit_code == 0
    warnings = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "so runs are kept offline" in warnings[0]


def test_probe_tells_servers_that_answer_from_those_that_do_not() -> None:
    for manner, expected in (("half", True), ("500", False), ("hang", False)):
        server = Server(manner)
        assert answers(server.address, timeout_s=0.5) == expected
        server.close()
        assert len(server.asked) == 1


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def test_a_process_that_never_reads_is_left_behind(tmp_path: Path, run: ReportRun) -> None:
    """The pipe fills, then the queue; the job neither waits nor fails."""
    command = python("import time; time.sleep(20)")
    tracking = WandbTracking(opening_of(tmp_path), command=command, patience_s=0.2)
    tracker = tracking.start("search", "search", config={}, objective=objective_of(run))
    for _ in range(300):
        tracker.trials(run.trials)
    tracking.close()
    assert not tracking.wait(0)
    assert not tracking.notes  # nobody has to do anything
    assert tracking.process
    tracking.process.kill()
    assert tracking.wait(10)


def test_a_queue_that_overflows_turns_tracking_off_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    command = python("import time; time.sleep(20)")
    tracking = WandbTracking(opening_of(tmp_path), command=command, patience_s=0.2)
    tracker = tracking.start("retrain", "r", config={"padding": "x" * 200_000})
    for step in range(20_000):
        tracker.log({"loss": 1.0}, step=step)
    tracking.close()
    assert [r.message for r in caplog.records] == ["W&B tracking is off: it does not keep up"]
    assert tracking.process
    tracking.process.kill()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("/nonexistent/python",), "its process can't start"),
        (python("raise SystemExit(1)"), "its process ended early"),
        (
            python(
                "import sys; sys.modules['wandb'] = None\n"
                "from paretopath.showing.tracking.session import main; main()"
            ),
            "W&B tracking is off: ModuleNotFoundError: import of wandb halted",
        ),
    ],
)
def test_a_process_that_fails_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, command: tuple[str, ...], message: str
) -> None:
    tracking = WandbTracking(opening_of(tmp_path), command=command)
    tracker = tracking.start("retrain", "r", config={})
    for step in range(100):
        tracker.log({"loss": 1.0}, step=step)
    tracking.close()
    assert tracking.wait(WHOLE_S)
    warnings = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert message in warnings[0]


def test_what_cannot_be_logged_ends_tracking_not_the_job(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracking = WandbTracking(opening_of(tmp_path))
    tracker = tracking.start("retrain", "r", config={})
    tracker.log({"loss": 1.0}, step=0)
    tracker.show(None, [])  # type: ignore[arg-type]
    tracker.log({"loss": 1.0}, step=1)
    tracking.close()
    assert tracking.wait(WHOLE_S)
    warnings = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "W&B tracking is off: AttributeError" in warnings[0]
    (found,) = read_runs(tmp_path)
    assert len(found.history) == 1


JOB = """
import os, signal, sys, time
from pathlib import Path
from paretopath.showing.tracking import WandbTracking
from paretopath.showing.tracking.identity import forget_run, load_identity, save_identity
from paretopath.showing.tracking.messages import Opening

run_dir = Path(sys.argv[1])
tracking = WandbTracking(Opening(run_dir, "offline", "p", None, "g", ()))
tracker = tracking.start("retrain", "r", config={})
for step in range(50):
    tracker.log({"loss": 1.0}, step=step)
while not list(run_dir.glob("tracking/r.json")) or '"next_step": 50' not in (
    run_dir / "tracking" / "r.json"
).read_text():
    time.sleep(0.05)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_job_leaves_a_readable_run_and_no_process(tmp_path: Path) -> None:
    job = subprocess.run([sys.executable, "-c", JOB, str(tmp_path)], check=False, timeout=WHOLE_S)
    assert job.returncode == -signal.SIGKILL
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    deadline = time.monotonic() + WHOLE_S
    while read_run(file).exit_code is None and time.monotonic() < deadline:
        time.sleep(0.1)
    found = read_run(file)
    assert [row["_step"] for row in found.history] == list(range(50))
    assert found.exit_code == 1


def test_signals_for_the_job_do_not_stop_its_tracking(tmp_path: Path) -> None:
    tracking = WandbTracking(opening_of(tmp_path))
    tracker = tracking.start("retrain", "r", config={})
    tracker.log({"loss": 1.0}, step=0)
    identity = tmp_path / "tracking" / "r.json"
    deadline = time.monotonic() + WHOLE_S
    while not identity.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert tracking.process
    os.killpg(tracking.process.pid, signal.SIGTERM)
    tracker.log({"loss": 2.0}, step=1)
    tracking.close(failed=True)
    assert tracking.wait(WHOLE_S)
    (found,) = read_runs(tmp_path)
    assert [row["loss"] for row in found.history] == [1.0, 2.0]
    assert found.exit_code == 1
