"""A search in W&B, read back from the files that wandb writes."""

import json
from pathlib import Path

import pytest

from paretopath.showing.report import ReportRun
from paretopath.showing.tracking import WandbTracking
from tests.pipeline.showing.tracking.tracked import (
    WHOLE_S,
    objective_of,
    opening_of,
    track_search,
    wait_for_a_name,
)
from tests.pipeline.showing.wandb_file import WandbRun, read_runs


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, run: ReportRun) -> WandbRun:
    run_dir = tmp_path_factory.mktemp("digits")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NETRC", str(run_dir / "none"))
        # wandb was used by this process before; its service is gone
        patch.setenv("WANDB_SERVICE", "3-1-unix-/tmp/no-such-folder/socket")
        return track_search(run_dir, run, project="p", group="g", tags=["t"], mode="offline")


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
