"""What people browse in W&B of a whole run, read back from the files that wandb writes."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paretopath import jobs
from paretopath.costs import COST_NAMES
from paretopath.evaluation.sensitivity import Sensitivity
from paretopath.front import select
from paretopath.recipe import Tracking as TrackingSettings
from paretopath.run import Run, build_space
from paretopath.showing.measure import load_measured
from paretopath.showing.tracking import WandbTracking, open_tracking, plain_decisions
from tests.pipeline.showing.wandb_file import WandbRun, read_runs

pytestmark = pytest.mark.timeout(400)  # one fixture searches, measures, retrains and tracks

WHOLE_S = 300.0  # for a process that imports wandb on a busy machine
GROUP = "tiny, magnet"


@pytest.fixture(scope="module")
def run(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A search with its sensitivity, two paths retrained, two and the full one measured."""
    directory = tmp_path_factory.mktemp("browsed") / "run"
    shutil.copytree(searched, directory)
    run = Run.open(directory, device="cpu")
    settings = TrackingSettings(mode="offline", group=GROUP)
    run.recipe = run.recipe.model_copy(update={"tracking": settings})
    run.recipe.save(run.recipe_file)
    jobs.sensitivity_run(run)
    jobs.measure_run(run, selection="count=2", threads=1, rounds=1)
    return run


@pytest.fixture(scope="module")
def seen(run: Run) -> Iterator[dict[str, WandbRun]]:
    """Its runs in W&B by their job type; of retrainings, the first."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patch.delenv(name)
        patch.setenv("NETRC", str(run.directory / "none"))
        first = jobs.plan_retraining(run, selection="count=2", mode="separate")[0]
        with open_tracking(run.directory, run.recipe.tracking) as tracking:
            jobs.track_sensitivity(run, tracking)
            results = jobs.retrain_tracked(run, first, tracking)
            jobs.collect(run, "separate", results)
            jobs.track_outcome(run, tracking)
        assert isinstance(tracking, WandbTracking)
        assert tracking.wait(WHOLE_S)
        yield {found.job_type: found for found in read_runs(run.directory)}


def figure(found: WandbRun, key: str) -> dict[str, Any]:
    content = json.loads((found.folder / "files" / found.logged(key)["path"]).read_text())
    assert isinstance(content, dict)
    return content


def column(rows: tuple[list[str], list[list[Any]]], name: str) -> list[Any]:
    return [row[rows[0].index(name)] for row in rows[1]]


def test_search_retraining_and_summary_are_one_group(seen: dict[str, WandbRun]) -> None:
    assert set(seen) == {"search", "retrain", "summary"}
    assert {found.group for found in seen.values()} == {GROUP}
    assert [found.exit_code for found in seen.values()] == [0, 0, 0]


def test_the_search_shows_its_sensitivity(seen: dict[str, WandbRun], run: Run) -> None:
    known = Sensitivity.load(run.sensitivity_file)
    table = seen["search"].table("sensitivity")
    assert len(table[1]) == len(known.effects)
    assert column(table, "decision")[0] == known.ranked()[0].decision
    (heat,) = figure(seen["search"], "sensitivity_figure")["data"]
    cells = {
        (row, what): cell
        for row, line in zip(heat["y"], heat["z"], strict=True)
        for what, cell in zip(heat["x"], line, strict=True)
    }
    for effect in known.effects:
        part, _, what = effect.decision.rpartition(".")
        cell = cells[part or "model", f"{what} {effect.value}"]
        assert cell == pytest.approx(100 * effect.lost)


def test_the_search_shows_the_costs_of_its_selected_paths(
    seen: dict[str, WandbRun], run: Run
) -> None:
    front = run.front()
    selected = select(front, run.recipe.retrain.select)
    table = seen["search"].table("kind_costs")
    assert set(column(table, "path")) == {p.id for p in (*selected, front.full)}
    assert table[0] == ["path", "kind", *COST_NAMES]
    for point in selected:
        rows = [dict(zip(table[0], row, strict=True)) for row in table[1] if row[0] == point.id]
        assert sum(row["macs"] for row in rows) == point.macs
        assert sum(row["energy_mj"] for row in rows) == pytest.approx(point.energy_mj)
    for key in ("unit_costs_figure", "kind_costs_figure"):
        bars = figure(seen["search"], key)["data"]
        energy = [bar for bar in bars if bar["xaxis"] == "x"]
        index = energy[0]["x"].index(front.full.id)
        total = sum(bar["y"][index] or 0 for bar in energy)
        assert total == pytest.approx(front.full.energy_mj)


def test_parallel_coordinates_hold_every_trial(seen: dict[str, WandbRun], run: Run) -> None:
    (lines,) = figure(seen["search"], "trials_figure")["data"]
    trials = [trial for trial in run.trials(build_space(run.recipe)) if trial.accuracy is not None]
    axes = {axis["label"]: axis for axis in lines["dimensions"]}
    assert axes[run.front().metric]["values"] == [trial.accuracy for trial in trials]
    for name in set(axes) - {run.front().metric, run.front().cost}:
        shown = [axes[name]["ticktext"][i] for i in axes[name]["values"]]
        assert shown == [str(trial.path.get(name, "absent")) for trial in trials]


def test_a_retraining_has_its_decisions_by_names_that_w_and_b_can_address(
    seen: dict[str, WandbRun], run: Run
) -> None:
    found = seen["retrain"]
    point = run.front()[found.config["path_id"]]
    assert found.config["decisions"] == plain_decisions(point.path)
    assert not any("." in name for name in found.config["decisions"])
    assert found.summary["accuracy_before"] == point.accuracy
    assert found.summary["accuracy_after"] == point.retrained["separate"].accuracy
    assert found.summary["energy_mj"] == point.energy_mj


def test_the_summary_brings_before_after_and_measured_onto_one_front(
    seen: dict[str, WandbRun], run: Run
) -> None:
    front, measured = run.front(), load_measured(run.measured_file)
    assert len(measured) == 3  # with the full path
    table = seen["summary"].table("paths")
    ids = column(table, "path")
    assert set(ids) == {p.id for p in (*front.points, front.full)}
    for name, before, after, latency in zip(
        ids,
        column(table, "accuracy"),
        column(table, "separate_accuracy"),
        column(table, "measured_latency_ms"),
        strict=True,
    ):
        assert before == front[name].accuracy
        assert after == front[name].retrained_accuracy
        assert latency == (measured[name].latency_ms if name in measured else None)
    traces = figure(seen["summary"], "outcome_figure")["data"]
    drawn = {(t["name"], t["xaxis"]): t for t in traces if t["mode"] == "markers"}
    assert sorted(drawn["before", "x2"]["x"]) == sorted(m.latency_ms for m in measured.values())
    (retrained,) = [p for p in front.points if p.retrained]
    assert drawn["after retraining", "x"]["y"] == [retrained.retrained_accuracy]
    summary = seen["summary"].summary
    assert summary["retrained_paths"] == 1
    gain = (retrained.retrained_accuracy or 0) - retrained.accuracy
    assert summary["mean_gain"] == pytest.approx(gain)
    assert summary["measured_paths"] == 3
    assert summary["hypervolume_after"] >= summary["hypervolume"]


def test_what_was_found_is_kept_as_artifacts(seen: dict[str, WandbRun]) -> None:
    search, summary = seen["search"], seen["summary"]
    files = {"front.json", "recipe.yaml", "sensitivity.json", "measured.json"}
    assert set(search.artifacts[f"front-{search.id}", "front"]) == files
    assert set(summary.artifacts[f"outcome-{summary.id}", "outcome"]) == files


def test_lines_of_several_searches_stay_apart(seen: dict[str, WandbRun], run: Run) -> None:
    table = seen["summary"].table("front_chart_table")
    hardware = run.front().hardware
    assert set(column(table, "line")) == {
        f"{GROUP}, {hardware}, searched",
        f"{GROUP}, {hardware}, retrained (separate)",
    }


def test_the_report_shows_what_the_runs_have_logged(seen: dict[str, WandbRun], run: Run) -> None:
    """Every table, figure, metric and configured value that a panel names is there."""
    pytest.importorskip("wandb_workspaces")
    from paretopath.showing.publish import build_report, published_search, report_spec

    grids = [
        block["metadata"]
        for block in report_spec(build_report([published_search(run)]))["spec"]["blocks"]
        if block["type"] == "panel-grid"
    ]
    # what the search logs for each trial is tried in test_tracked_search; here it was over before
    of_trials = {"trial", "hypervolume", "best_accuracy"}
    front = run.front()
    configured = {
        f"decisions.value.{name}"
        for point in (*front.points, front.full)
        for name in plain_decisions(point.path)
    }
    named = set()
    for grid in grids:
        (runset,) = grid["runSets"]
        kind = next(f["value"] for f in leaves(runset["filters"]) if f["name"] == "jobType")
        found = seen[kind]
        logged = {key for row in found.history for key in row} | set(found.summary) | of_trials
        for panel in grid["panelBankSectionConfig"]["panels"]:
            for key in keys_of(panel):
                named.add(key)
                assert key in logged | configured | {"front_chart_table"}, (kind, panel)
    assert {"sensitivity_figure", "outcome_figure", "trials", "paths", "accuracy_after"} <= named
    assert any(key.startswith("decisions.value.") for key in named)


def leaves(filters: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The conditions of a run set's filter, with the name of their key."""
    if "filters" in filters:
        for inner in filters["filters"]:
            yield from leaves(inner)
    elif "key" in filters:
        yield {"name": filters["key"]["name"], "value": filters.get("value")}


def keys_of(panel: dict[str, Any]) -> Iterator[str]:
    """What a panel reads of runs."""
    config, kind = panel["config"], panel["viewType"]
    if kind == "Media Browser":
        yield from config["mediaKeys"]
    elif kind == "Run History Line Plot":
        yield from [config["xAxis"], *config["metrics"]]
    elif kind == "Scatter Plot":
        yield from (config[axis].split(":")[1] for axis in ("xAxis", "yAxis"))
    elif kind == "Parallel Coordinates Plot":
        yield from (column["accessor"].split(":")[1] for column in config["columns"])
    elif kind == "Vega2":
        text = json.dumps(config)
        assert "front_chart_table" in text
        yield "front_chart_table"
    else:
        assert kind == "Weave"
        text = json.dumps(config)
        yield from (name for name in ("trials", "paths") if f'"{name}"' in text)
