"""What a report says: its data, its one file, and what it refuses."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paretopath.errors import InvalidValueError
from paretopath.front import Front, Point, TrialRecord, hypervolume, select
from paretopath.paths import ExecutionPath
from paretopath.showing.report import ReportRun, UnitCost, render_report, write_report
from paretopath.showing.report.content import MOST_TRIALS, report_content
from tests.pipeline.search.example_search import example_run, example_space, with_policies


@pytest.fixture(scope="module")
def run() -> ReportRun:
    return example_run()


@pytest.fixture(scope="module")
def content(run: ReportRun) -> dict[str, Any]:
    return report_content([run], "Digits")


def path_of(row: list[int], content: dict[str, Any]) -> dict[str, Any]:
    """A path out of a report's row of value indices."""
    pairs = zip(content["decisions"], row, strict=True)
    return {d["name"]: d["values"][i] for d, i in pairs if i >= 0}


def embedded(page: str) -> dict[str, Any]:
    """The data that a page holds."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_points_keep_everything_of_the_front(run: ReportRun, content: dict[str, Any]) -> None:
    shown = content["runs"][0]["points"]
    assert [p["id"] for p in shown] == [p.id for p in run.front.points]
    for record, point in zip(shown, run.front.points, strict=True):
        assert path_of(record["path"], content) == dict(point.path)
        assert (record["accuracy"], record["error"]) == (point.accuracy, point.accuracy_error)
        assert record["test"] == {"accuracy": point.test_accuracy, "error": point.test_error}
        assert record["costs"]["energy_mj"] == point.energy_mj
        assert set(record["retrained"]) == set(point.retrained)
    assert content["runs"][0]["knee"] == select(run.front, "knee")[0].id


def test_the_better_mode_of_retraining_comes_first(content: dict[str, Any]) -> None:
    both = [p["retrained"] for p in content["runs"][0]["points"] if len(p["retrained"]) == 2]
    assert [list(modes) for modes in both] == [["separate", "shared"]]


def test_trials_are_all_there_but_those_without_accuracy(
    run: ReportRun, content: dict[str, Any]
) -> None:
    shown = content["runs"][0]["trials"]
    assert [t["number"] for t in shown] == [t.number for t in run.trials if t.accuracy is not None]
    assert content["runs"][0]["states"] == {"complete": 58, "stopped": 1, "failed": 1}
    assert path_of(shown[9]["path"], content) == dict(run.trials[10].path)


def test_values_of_decisions_rise_from_cheap_to_full(content: dict[str, Any]) -> None:
    values = {d["name"]: d["values"] for d in content["decisions"]}
    space = example_space()
    assert list(values) == [d.name for d in space.decisions]
    assert all(values[d.name] == list(d.values) for d in space.decisions)


def test_words_as_values_are_ordered_by_their_paths_macs() -> None:
    def point(word: str, macs: int, number: int) -> Point:
        costs = {"macs": macs, "params": 1, "energy_mj": float(macs)}
        path = ExecutionPath({"decoder": word})
        return Point(path, number, 0.5 + macs / 100, 0.0, 0, costs)

    full = point("as_published", 30, 2)
    points = [point("merged", 10, 0), point("half", 20, 1), full]
    front = Front.of(points, full=full, recipe={}, hardware="h", metric="mIoU")
    decisions = report_content([ReportRun("r", front)], "t")["decisions"]
    assert decisions == [{"name": "decoder", "values": ["merged", "half", "as_published"]}]


def test_history_is_the_hypervolume_over_complete_trials(
    run: ReportRun, content: dict[str, Any]
) -> None:
    history = content["runs"][0]["history"]
    complete = [t for t in run.trials if t.state == "complete"]
    for number, share in zip(history["trials"], history["hypervolume"], strict=True):
        seen = [t for t in complete if t.number <= number]
        accuracy = [t.accuracy for t in seen]
        cost = [t.costs["energy_mj"] for t in seen]
        area = hypervolume(accuracy, cost, run.front.reference)
        assert share == pytest.approx(area / run.front.reference[1])
    assert history["trials"][-1] == complete[-1].number
    assert history["hypervolume"][-1] == pytest.approx(run.front.hypervolume)


def test_long_searches_are_thinned_but_counted(run: ReportRun) -> None:
    trial = run.trials[0]
    many = [replace(trial, number=i) for i in range(2 * MOST_TRIALS + 1)]
    shown = report_content([replace(run, trials=many)], "t")["runs"][0]
    assert MOST_TRIALS / 2 < len(shown["trials"]) <= MOST_TRIALS
    assert shown["states"] == {"complete": 2 * MOST_TRIALS + 1}


def test_unmeasured_unit_costs_are_left_out_not_zero(run: ReportRun) -> None:
    units = {run.front.full.id: [UnitCost("stem", {"energy_mj": math.nan, "macs": 3.0})]}
    shown = report_content([replace(run, unit_costs=units)], "t")["runs"][0]["units"]
    assert shown == {run.front.full.id: [{"unit": "stem", "macs": 3.0}]}


def test_sensitivity_is_a_grid_of_parts_and_changes(
    run: ReportRun, content: dict[str, Any]
) -> None:
    assert run.sensitivity is not None
    shown = content["runs"][0]["sensitivity"]
    assert shown["cost"] == "energy_mj"
    assert len(shown["cells"]) == len(run.sensitivity.effects)
    cell = next(c for c in shown["cells"] if c["decision"] == "blocks.2.heads" and c["value"] == 2)
    assert (cell["row"], cell["what"]) == ("blocks.2", "heads")
    assert {c["row"] for c in shown["cells"] if c["what"] == "exit"} == {"model"}
    without = report_content([replace(run, sensitivity=None)], "Digits")
    assert without["runs"][0]["sensitivity"] is None


def test_policies_say_where_images_leave_on_each_split(run: ReportRun) -> None:
    left = with_policies(run)
    early, whole = report_content([left], "t")["runs"][0]["policies"]
    assert early["exits"] == ["exits.1", "exits.2", "exits.4"] and whole["exits"] == ["exits.4"]
    assert early["splits"]["test"]["shares"] == [0.7, 0.3, 0.0]
    assert early["splits"]["validation"]["right"] == [0.99, 0.9, None]
    assert early["costs"]["energy_mj"] == pytest.approx(0.4 * left.front.full.energy_mj)
    assert report_content([run], "t")["runs"][0]["policies"] == []


def test_refuses_what_cannot_be_shown_together(run: ReportRun) -> None:
    with pytest.raises(InvalidValueError, match="needs at least one run"):
        report_content([], "t")
    with pytest.raises(InvalidValueError, match="must have distinct names, but got"):
        report_content([run, run], "t")
    other = replace(run, name="other", front=replace(run.front, metric="mIoU"))
    with pytest.raises(InvalidValueError, match="must share one metric, but have mIoU, top-1"):
        report_content([run, other], "t")


def test_page_is_one_file_that_may_load_nothing(tmp_path: Path, run: ReportRun) -> None:
    write_report(tmp_path / "report.html", [run], title="Digits")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert "default-src 'none'" in page
    assert "plotly.js v" in page
    assert "{{" not in page.split("<script>")[0]
    outside_scripts = re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"(src|href)\s*=|url\(|@import", outside_scripts)
    assert embedded(page)["runs"][0]["recipe"].startswith("name: digits\nspace: {name: vit}\n")


def test_what_users_write_cannot_become_markup(run: ReportRun) -> None:
    nasty = "</script><script>alert(1)</script><!-- {{plotly}} & \u2028"
    front = replace(run.front, recipe={"name": nasty}, hardware=nasty, metric=nasty)
    page = render_report([replace(run, name=nasty, front=front)], title=nasty)
    assert "<script>alert" not in page
    assert page.count("</script>") == 3
    data = embedded(page)
    assert (data["title"], data["metric"], data["runs"][0]["hardware"]) == (nasty, nasty, nasty)
    assert "<title>&lt;/script&gt;" in page


def test_a_front_without_points_still_reports(run: ReportRun) -> None:
    empty = replace(run.front, points=())
    failed = TrialRecord(0, "failed", ExecutionPath({"exit": 1}), None, None, 0, {}, "lost")
    shown = report_content([ReportRun("none", empty, [failed])], "t")["runs"][0]
    assert shown["knee"] is None
    assert shown["history"] == {"trials": [], "hypervolume": []}
    assert shown["states"] == {"failed": 1}
