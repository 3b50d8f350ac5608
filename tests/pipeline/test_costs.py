"""The tuple of costs, and that everything that shows costs follows it."""

import sys
from pathlib import Path
from typing import Any

import pytest

import search_spaces
from paretopath.cli.tables.front import front_table
from paretopath.cost import CostTable, create
from paretopath.costs import COST_NAMES, COSTS, Cost, cost_named, known_costs
from paretopath.errors import InvalidValueError
from paretopath.front import Front, Point, load_front
from paretopath.quantities import quantity, told_apart
from paretopath.recipe.search import Search
from paretopath.showing.profile import profile_path
from paretopath.showing.report.content import ReportRun, report_content
from paretopath.showing.tracking.charts import front_rows

SMALL = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2}


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> str:
    """A cost that is new to every part of the program, as if it stood in the tuple."""
    cost = Cost(
        "passes",
        "passes over elements",
        "",
        of_unit=lambda trace: sum(layer.is_pass for layer in trace.layers),
        of_kind=lambda trace, kind: sum(y.is_pass and y.kind == kind for y in trace.layers),
        whole=True,
        in_brief=True,
    )
    for name, module in list(sys.modules.items()):
        for attribute, value in (
            ("COSTS", (*COSTS, cost)),
            ("COST_NAMES", (*COST_NAMES, "passes")),
        ):
            if name.startswith("paretopath.") and hasattr(module, attribute):
                monkeypatch.setattr(module, attribute, value)
    return cost.name


def test_a_new_cost_is_one_entry_of_the_tuple(passes: str, tmp_path: Path) -> None:
    space = search_spaces.create("vit", arguments=SMALL)
    table = CostTable(space, create("accelerator", preset="magnet-16nm"))
    paths = [space.smallest, space.full]
    priced = table(paths)
    few, many = priced[passes].tolist()
    assert 0 < few < many

    points = [Point(path, i, 0.5 + i / 4, 0.01, 9, priced.row(i)) for i, path in enumerate(paths)]
    options: dict[str, Any] = {"recipe": {}, "hardware": "magnet-16nm", "metric": "top-1"}
    front = Front.of(points, full=points[1], cost=passes, **options)
    front.save(tmp_path / "front.json")
    front.save_csv(tmp_path / "front.csv", front.points)
    assert [point.cost(passes) for point in load_front(tmp_path).points] == [few, many]
    assert passes in (tmp_path / "front.csv").read_text().splitlines()[0].split(",")

    profile = profile_path(table, space.full)
    assert sum(row.costs[passes] for row in profile.by_kind) == profile.total(passes) == many
    shown = [column.header for column in front_table(front, front.points).columns]
    assert "passes over elements" in shown
    assert passes in report_content([ReportRun("one", front)], "title")["costs"]
    assert passes in front_rows(front)[0]
    assert Search(cost=passes, budgets={passes: "70%"}).limits == {passes: "70%"}


def test_what_is_not_known_is_absent_and_never_0() -> None:
    latency, peak = cost_named("latency_ms"), cost_named("activation_bytes")
    assert latency.combined([1.0, None]) is None and peak.combined([1.0, float("nan")]) is None
    assert latency.combined([1.0, 2.0]) == 3 and peak.combined([1.0, 2.0]) == 2
    assert latency.combined([]) == peak.combined([]) == 0
    assert known_costs({"energy_mj": None, "macs": 3.0, "other": 1.0}) == {"macs": 3}
    with pytest.raises(InvalidValueError, match=r"'energy' is not a cost; .*did you mean"):
        cost_named("energy")


def test_names_are_distinct() -> None:
    assert len({cost.name for cost in COSTS}) == len(COSTS)


def test_numbers_have_three_digits_and_the_unit_that_suits_them() -> None:
    assert quantity(4.25352e-05, "mJ") == "42.5 nJ"
    assert quantity(262_144, "B") == "262 kB" and quantity(17, "B") == "17 B"
    assert quantity(999.96, "ms") == "1.00 s" and quantity(3, "") == "3"
    assert quantity(None, "mJ") == quantity(float("nan"), "ms") == "–"


def test_numbers_that_are_compared_show_which_is_larger() -> None:
    assert told_apart(1.0, 2.0, "mJ") == ("1.00 mJ", "2.00 mJ")
    assert told_apart(4.25352e-05, 4.25361e-05, "mJ") == ("42.535 nJ", "42.536 nJ")
    assert told_apart(1.0, 1.0, "ms")[0].startswith("1.00")
