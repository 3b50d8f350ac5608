"""What W&B costs a job: where it is off, offline, refused, or its server hangs or answers 500.

    python benchmarks/tracking_overhead.py [--seconds 60] [--trials 200]

The job computes (one core) and reports a trial after each share of its work, then its front.
Printed are the seconds that it spent inside tracking, and how much longer it took than without
tracking, which also shows what the other process takes from its cores. The peer of each is the
same calls of wandb made by the job itself, in a process that ends with it.
"""

import argparse
import http.server
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from environment import save

sys.path.insert(0, str(Path(__file__).parents[1]))

from paretopath.recipe import Tracking as TrackingSettings
from paretopath.showing.report import ReportRun
from paretopath.showing.tracking import Objective, RunKind, WandbTracker, open_tracking
from paretopath.showing.tracking.messages import Message, Opening, Start
from paretopath.showing.tracking.session import Session
from tests.pipeline.search.example_search import example_run

MOST_S = 300.0  # that a job calling wandb itself is waited for
SERVERS = ("disabled", "offline", "refused", "hanging", "500")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--direct", type=int, metavar="WORK", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.direct:
        print(json.dumps(job(example_run(trials=arguments.trials), arguments.direct, direct=True)))
        return
    run = example_run(trials=arguments.trials)
    work = calibrate(arguments.seconds / len(run.trials))
    rows = []
    for server in SERVERS:
        with serving(server) as address:
            os.environ |= {"WANDB_BASE_URL": address, "WANDB_API_KEY": "0" * 40}
            os.environ["WANDB_MODE"] = server if server in ("disabled", "offline") else "online"
            total, inside = job(run, work)
            row = {"server": server, "job_s": total, "inside_tracking_s": inside}
            if server != "disabled":
                row |= direct(arguments.trials, work)
        rows.append(row)
        print(
            f"{server:9} job {total:6.1f} s ({total / rows[0]['job_s'] - 1:+.1%}), "
            f"inside tracking {inside:.2f} s ({inside / total:.1%})",
            *[f"{name} {value:.2f}" for name, value in row.items() if name.startswith("direct")],
            flush=True,
        )
    save("tracking_overhead", {"seconds": arguments.seconds, "rows": rows})


def direct(trials: int, work: int) -> dict[str, float]:
    """The same job calling wandb itself: seconds inside it, and from the start to the exit,
    which is infinite where it had not ended after MOST_S.
    """
    command = [sys.executable, __file__, "--trials", str(trials), "--direct", str(work)]
    begin = time.perf_counter()
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, text=True, check=True, timeout=MOST_S
        )
    except subprocess.TimeoutExpired:
        return {"direct_process_s": math.inf}
    process_s = time.perf_counter() - begin
    total, inside = json.loads(done.stdout.splitlines()[-1])
    return {
        "direct_job_s": total,
        "direct_inside_tracking_s": inside,
        "direct_process_s": process_s,
    }


def calibrate(seconds: float) -> int:
    """How many units of work take that long."""
    start = time.perf_counter()
    compute(200)
    return max(1, round(200 * seconds / (time.perf_counter() - start)))


def compute(units: int) -> None:
    matrix = np.eye(128)
    for _ in range(units):
        matrix = matrix @ matrix


class InThisProcess:
    """Takes the place of the other process: what it is sent is done at once."""

    def __init__(self, folder: str) -> None:
        opening = Opening(
            run_dir=Path(folder),
            mode="auto",
            project="paretopath",
            entity=None,
            group="direct",
            tags=(),
        )
        self.session = Session(opening, lambda kind, text: print(text, file=sys.stderr))

    def send(self, message: Message) -> None:
        """Does what the message asks, with wandb, now."""
        self.session.handle(message)

    def start(
        self, kind: RunKind, name: str, *, config: Mapping[str, Any], objective: Objective
    ) -> WandbTracker:
        """A run of this process."""
        self.send(Start(name, kind, config, objective))
        return WandbTracker(self, name)  # type: ignore[arg-type]

    def close(self) -> None:
        """Ends the runs."""
        self.session.close(failed=False)


def job(run: ReportRun, work: int, *, direct: bool = False) -> tuple[float, float]:
    """Seconds of a whole job, and of those inside calls of the tracker."""
    inside = 0.0
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        mark = time.perf_counter()
        tracking = InThisProcess(folder) if direct else open_tracking(folder, TrackingSettings())
        objective = Objective("energy_mj", run.front.cost_of(run.front.full))
        tracker = tracking.start("search", "search", config={}, objective=objective)
        inside += time.perf_counter() - mark
        for trial in run.trials:
            compute(work)
            mark = time.perf_counter()
            tracker.trials([trial])
            inside += time.perf_counter() - mark
        mark = time.perf_counter()
        tracker.show(run.front, run.trials, unit_costs=run.unit_costs)
        tracker.finish()
        tracking.close()
        inside += time.perf_counter() - mark
        total = time.perf_counter() - begin
    return total, inside


@contextmanager
def serving(kind: str) -> Iterator[str]:
    """A local server of that kind; ``refused`` is a port that nobody listens to."""
    released = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if kind == "hanging":
                released.wait()
            self.send_response(500)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if kind == "refused":
        server.server_close()
    else:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    released.set()
    if kind != "refused":
        server.shutdown()
        server.server_close()


if __name__ == "__main__":
    main()
