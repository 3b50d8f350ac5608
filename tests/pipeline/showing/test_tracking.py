"""W&B tracking, read back from the files that wandb writes; jobs that go on whatever W&B does."""

import http.server
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paretopath.recipe import Tracking as TrackingSettings
from paretopath.showing.report import ReportRun
from paretopath.showing.tracking import (
    NullTracking,
    Objective,
    WandbTracking,
    open_tracking,
)
from paretopath.showing.tracking.identity import forget_run, load_identity, save_identity
from paretopath.showing.tracking.messages import Opening
from paretopath.showing.tracking.mode import answers, has_key, wanted_mode
from paretopath.showing.tracking.offline import next_offline_step
from tests.pipeline.search.example_search import example_run
from tests.pipeline.showing.wandb_file import WandbRun, read_run, read_runs

WHOLE_S = 100.0  # for a process that imports wandb on a busy machine


@pytest.fixture(scope="module")
def run() -> ReportRun:
    return example_run()


@pytest.fixture(autouse=True)
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, no login and no variables of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))


def opening_of(run_dir: Path, **changes: Any) -> Opening:
    made = Opening(run_dir, "offline", "paretopath", None, run_dir.name, ())
    return replace(made, **changes)


def objective_of(run: ReportRun) -> Objective:
    return Objective(run.front.cost, run.front.cost_of(run.front.full))


def wait_for_a_name() -> None:
    """W&B names folders by the second: the next run begins in another one."""
    second = int(time.time())
    while int(time.time()) == second:
        time.sleep(0.01)


def track_search(run_dir: Path, run: ReportRun, **settings: Any) -> WandbRun:
    """A whole search, tracked as the recipe's settings say; read back."""
    run.front.save(run_dir / "front.json")
    tracking = open_tracking(run_dir, TrackingSettings(**settings))
    with tracking:
        search = tracking.start(
            "search", "search", config=run.front.recipe, objective=objective_of(run)
        )
        for trial in run.trials:
            search.trials([trial])
        files = [run_dir / "front.json"]
        search.show(run.front, run.trials, unit_costs=run.unit_costs, files=files)
    assert isinstance(tracking, WandbTracking)
    assert tracking.wait(WHOLE_S)
    (found,) = read_runs(run_dir)
    return found


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, run: ReportRun) -> WandbRun:
    run_dir = tmp_path_factory.mktemp("digits")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NETRC", str(run_dir / "none"))
        # wandb was used by this process before; its service is gone
        patch.setenv("WANDB_SERVICE", "3-1-unix-/tmp/no-such-folder/socket")
        return track_search(run_dir, run, project="p", group="g", tags=["t"], mode="offline")


# ---------------------------------------------------------------- a search


def test_a_search_is_a_run_with_its_recipe(searched: WandbRun, run: ReportRun) -> None:
    assert (searched.group, searched.job_type, searched.name) == ("g", "search", "g search")
    assert searched.tags == ("t",)
    recipe = {key: searched.config[key] for key in run.front.recipe}
    assert recipe == run.front.recipe
    assert searched.exit_code == 0


def test_every_trial_is_a_point_of_the_history(searched: WandbRun, run: ReportRun) -> None:
    rows = [row for row in searched.history if "failed" in row]
    assert [row["trial"] for row in rows] == [trial.number for trial in run.trials]
    for row, trial in zip(rows, run.trials, strict=True):
        assert row.get("accuracy") == trial.accuracy
        assert row["energy_mj"] == trial.costs["energy_mj"]
    complete = [t.accuracy for t in run.trials if t.state == "complete"]
    assert rows[-1]["best_accuracy"] == max(a for a in complete if a is not None)
    assert rows[-1]["hypervolume"] == pytest.approx(run.front.hypervolume)
    volumes = [row["hypervolume"] for row in rows]
    assert volumes == sorted(volumes)
    assert rows[-1]["failed"] == 1


def test_the_table_of_trials_has_every_decision(searched: WandbRun, run: ReportRun) -> None:
    columns, rows = searched.table("trials")
    assert len(rows) == len(run.trials)
    assert set(run.front.full.path) <= set(columns)
    for row, trial in zip(rows, run.trials, strict=True):
        cells = dict(zip(columns, row, strict=True))
        assert cells["path"] == trial.path.id
        assert cells["state"] == trial.state
        decided = {name: cells[name] for name in run.front.full.path if cells[name] is not None}
        assert decided == dict(trial.path)


def test_the_front_is_a_table_a_vega_chart_and_a_figure(searched: WandbRun, run: ReportRun) -> None:
    columns, rows = searched.table("front")
    accuracies = [row[columns.index("accuracy")] for row in rows]
    assert accuracies == [p.accuracy for p in run.front.points]
    assert {"shared_accuracy", "separate_test_accuracy", "saved"} <= set(columns)

    chart = searched.config["_wandb"]["visualize"]["front_chart"]["panel_config"]
    assert chart["panelDefId"] == "wandb/line/v0"
    assert chart["fieldSettings"] == {"x": "energy_mj", "y": "accuracy", "stroke": "series"}
    _, lines = searched.table("front_chart_table")
    front = [[p.energy_mj, p.accuracy] for p in run.front.points]
    assert [row[:2] for row in lines if row[2] == "searched"] == front
    assert {row[2] for row in lines} == {"searched", "retrained (shared)", "retrained (separate)"}

    figure = searched.folder / "files" / searched.logged("front_figure")["path"]
    traces = {trace["name"]: trace for trace in json.loads(figure.read_text())["data"]}
    assert traces["front"]["y"] == [p.accuracy for p in run.front.points]
    assert run.front.points[0].id in traces["front"]["text"][0]


def test_costs_of_units_are_a_table(searched: WandbRun, run: ReportRun) -> None:
    columns, rows = searched.table("unit_costs")
    full = [row for row in rows if row[columns.index("path")] == run.front.full.id]
    units = run.unit_costs[run.front.full.id]
    assert [row[columns.index("unit")] for row in full] == [u.unit for u in units]


def test_front_json_is_an_artifact(searched: WandbRun) -> None:
    assert searched.artifacts[f"front-{searched.id}", "front"] == ["front.json"]


def test_summary_says_what_came_out(searched: WandbRun, run: ReportRun) -> None:
    assert searched.summary["hypervolume"] == pytest.approx(run.front.hypervolume)
    assert searched.summary["front_points"] == len(run.front.points)
    assert searched.summary["full_accuracy"] == run.front.full.accuracy


def test_a_resumed_search_is_the_same_run_and_goes_on(tmp_path: Path, run: ReportRun) -> None:
    half = len(run.trials) // 2
    for known, new in (
        ((), run.trials[:half]),
        (run.trials[:half], run.trials[half:]),
    ):
        tracking = WandbTracking(opening_of(tmp_path))
        search = tracking.start("search", "search", config={}, objective=objective_of(run))
        search.trials(known, known=True)
        search.trials(new)
        tracking.close()
        assert tracking.wait(WHOLE_S)
        wait_for_a_name()
    first, second = read_runs(tmp_path)
    assert first.id == second.id
    rows = [*first.history, *second.history]
    assert [row["trial"] for row in rows] == [trial.number for trial in run.trials]
    assert [row["_step"] for row in rows] == list(range(len(run.trials)))
    assert rows[-1]["hypervolume"] == pytest.approx(run.front.hypervolume)


# ---------------------------------------------------------------- retraining


def test_retrained_paths_are_runs_of_the_searchs_group(tmp_path: Path, run: ReportRun) -> None:
    points = [p for p in run.front.points if p.retrained][:2]
    with WandbTracking(opening_of(tmp_path)) as tracking:
        trackers = [
            tracking.start("retrain", f"shared-{p.id}", config={"decisions": dict(p.path)})
            for p in points
        ]
        for epoch in range(3):
            for tracker in trackers:
                tracker.log({"loss": 1 / (epoch + 1), "accuracy": float("nan")}, step=epoch)
        for point, tracker in zip(points, trackers, strict=True):
            after = point.retrained_accuracy
            tracker.summarize({"accuracy": point.accuracy, "retrained_accuracy": after})
            tracker.finish()
    assert tracking.wait(WHOLE_S)
    found = {r.name.split("-")[-1]: r for r in read_runs(tmp_path)}
    assert set(found) == {p.id for p in points}
    for point in points:
        seen = found[point.id]
        assert (seen.group, seen.job_type) == (tmp_path.name, "retrain")
        assert seen.config["decisions"] == dict(point.path)
        assert [row["loss"] for row in seen.history] == [1, 1 / 2, 1 / 3]
        assert all("accuracy" not in row for row in seen.history)
        assert seen.summary["accuracy"] == point.accuracy
        assert seen.summary["retrained_accuracy"] == point.retrained_accuracy
        assert seen.exit_code == 0


def test_epochs_that_a_resumed_training_repeats_are_logged_once(tmp_path: Path) -> None:
    for epochs in (range(0, 4), range(2, 6)):
        tracking = WandbTracking(opening_of(tmp_path))
        tracker = tracking.start("retrain", "separate-3f2a", config={})
        for epoch in epochs:
            tracker.log({"loss": float(epoch)}, step=epoch)
        tracking.close()
        assert tracking.wait(WHOLE_S)
        wait_for_a_name()
    first, second = read_runs(tmp_path)
    assert first.id == second.id
    steps = [row["_step"] for row in (*first.history, *second.history)]
    assert steps == list(range(6))


def test_epochs_that_a_killed_process_had_not_written_are_logged_by_the_next(
    tmp_path: Path,
) -> None:
    for told, epochs in ((None, range(0, 3)), (5, range(0, 6))):
        if told is not None:  # as if more had been told than W&B had on disk when it was killed
            identity = load_identity(tmp_path, "separate-3f2a")
            assert identity.next_step == next_offline_step(tmp_path, identity.id) == 3
            save_identity(tmp_path, "separate-3f2a", replace(identity, next_step=told))
        tracking = WandbTracking(opening_of(tmp_path))
        tracker = tracking.start("retrain", "separate-3f2a", config={})
        for epoch in epochs:
            tracker.log({"loss": float(epoch)}, step=epoch)
        tracking.close()
        assert tracking.wait(WHOLE_S)
        wait_for_a_name()
    first, second = read_runs(tmp_path)
    assert first.id == second.id
    steps = [row["_step"] for row in (*first.history, *second.history)]
    assert steps == list(range(6))


def test_a_run_that_is_forgotten_begins_as_another(tmp_path: Path) -> None:
    first = load_identity(tmp_path, "separate-3f2a")
    assert load_identity(tmp_path, "separate-3f2a") == first
    forget_run(tmp_path, "separate-3f2a")
    forget_run(tmp_path, "never-begun")
    assert load_identity(tmp_path, "separate-3f2a").id != first.id


# ---------------------------------------------------------------- online, offline, off


@pytest.mark.parametrize(
    ("setting", "environ", "mode"),
    [
        ("auto", {}, "auto"),
        ("online", {}, "online"),
        ("auto", {"WANDB_MODE": "online"}, "online"),
        ("online", {"WANDB_MODE": "offline"}, "offline"),
        ("online", {"WANDB_MODE": "dryrun"}, "offline"),
        ("offline", {"WANDB_MODE": "disabled"}, "disabled"),
        ("disabled", {"WANDB_MODE": "online"}, "disabled"),
        ("online", {"WANDB_DISABLED": "true"}, "disabled"),
        ("offline", {"WANDB_MODE": "nonsense"}, "offline"),
    ],
)
def test_mode_follows_recipe_and_environment(setting: Any, environ: Any, mode: str) -> None:
    assert wanted_mode(setting, environ) == mode


def test_a_key_may_be_a_variable_or_a_login(tmp_path: Path) -> None:
    server = "https://api.wandb.ai"
    assert not has_key(server, {}, tmp_path)
    assert has_key(server, {"WANDB_API_KEY": "k"}, tmp_path)
    (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password secret\n")
    assert has_key(server, {}, tmp_path)
    assert not has_key("https://wandb.example.com", {}, tmp_path)
    (tmp_path / "other").write_text("machine wandb.example.com login user password secret\n")
    assert has_key("https://wandb.example.com", {"NETRC": str(tmp_path / "other")}, tmp_path)
    (tmp_path / "broken").write_text("machine\n???")
    assert not has_key(server, {"NETRC": str(tmp_path / "broken")}, tmp_path)


def test_disabled_tracks_nothing(tmp_path: Path, run: ReportRun) -> None:
    with open_tracking(tmp_path, TrackingSettings(mode="disabled")) as tracking:
        tracker = tracking.start("search", "search", config={}, objective=objective_of(run))
        tracker.trials(run.trials)
        tracker.show(run.front, run.trials)
        tracker.log({"a": 1.0}, step=0)
        tracker.summarize({})
        tracker.finish()
    assert isinstance(tracking, NullTracking)
    assert list(tmp_path.iterdir()) == []


def test_auto_without_a_key_is_offline_and_says_how_to_upload(tmp_path: Path) -> None:
    tracking = open_tracking(tmp_path, TrackingSettings())
    tracking.start("search", "search", config={})
    tracking.close()
    assert isinstance(tracking, WandbTracking)
    assert tracking.wait(WHOLE_S)
    (found,) = read_runs(tmp_path)
    assert found.group == tmp_path.name
    assert any(f"wandb sync {tmp_path}/wandb/offline-run-*" in note for note in tracking.notes)


# ---------------------------------------------------------------- what W&B may do


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
