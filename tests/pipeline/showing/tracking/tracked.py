"""Runs tracked as jobs track theirs, and read back."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from paretopath.recipe import Tracking as TrackingSettings
from paretopath.showing.report import ReportRun
from paretopath.showing.tracking import Objective, WandbTracking, open_tracking
from paretopath.showing.tracking.messages import Opening
from tests.pipeline.showing.wandb_file import WandbRun, read_runs

WHOLE_S = 100.0  # for a process that imports wandb on a busy machine


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
