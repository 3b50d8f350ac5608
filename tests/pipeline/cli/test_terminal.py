"""What commands print."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import TrialState
from rich.console import Console
from rich.table import Table

from paretopath.cli.progressing import Progressing
from paretopath.cli.tables.columns import Column, table_of
from paretopath.cli.tables.front import (
    ROWS,
    change,
    excerpt,
    front_table,
    rescored_table,
    sensitivity_table,
)
from paretopath.evaluation.sensitivity import Effect, Sensitivity
from paretopath.front.points import Retrained
from paretopath.jobs import Rescored
from paretopath.paths import ExecutionPath
from paretopath.quantities import counted, percent, quantity
from paretopath.run import Run
from paretopath.search import SearchProgress
from paretopath.search.trials import Evaluated
from paretopath.tasks.task import Score


def test_no_more_points_are_shown_than_a_screen_holds(searched: Path) -> None:
    front = Run.open(searched, device="cpu").front()
    assert list(excerpt(front)) == list(front.points)
    cheapest = front.points[0]
    points = tuple(
        replace(
            cheapest,
            number=i,
            path=ExecutionPath({"i": i}),
            accuracy=0.1 + i / 1000,
            costs={**cheapest.costs, "energy_mj": 1.0 + i / 100},
        )
        for i in range(3 * ROWS)
    )
    shown = excerpt(replace(front, points=points))
    assert len(shown) == ROWS
    assert (shown[0], shown[-1]) == (points[0], points[-1])


def test_a_progress_that_does_not_move_is_one_line() -> None:
    written = io.StringIO()
    with Progressing(Console(file=written, width=80), "pricing") as bar:
        for done in (1, 2, 2, 2):
            bar.update(done, 2, "")
    assert written.getvalue().splitlines() == ["pricing: 1/2", "pricing: 2/2"]


def shown_at(width: int, table: Table) -> str:
    written = io.StringIO()
    Console(file=written, width=width).print(table)
    return written.getvalue()


@pytest.mark.parametrize("modes", [(), ("shared",), ("separate", "shared")])
def test_nothing_of_a_front_is_cut_at_80_columns(searched: Path, modes: tuple[str, ...]) -> None:
    front = Run.open(searched, device="cpu").front()
    points = list(front.points)
    made = [Retrained(0.9876, 0.0123, 0.9765, 0.0123), Retrained(0.9432, 0.0111, 0.95, 0.01)]
    points = [replace(p, retrained=dict(zip(modes, made, strict=False))) for p in points]
    text = shown_at(80, front_table(front, points, width=80))
    assert "…" not in text and all(len(line) <= 80 for line in text.splitlines())
    for point in points:
        (line,) = (line for line in text.splitlines() if point.id in line)
        assert quantity(point.energy_mj, "mJ") in line
        for column, one in enumerate(made):
            assert (percent(one.accuracy, one.error) in line) == (column < len(modes))
    everything = shown_at(200, front_table(front, points, width=200))
    for title in ("MACs", "parameters", "latency", "saved", *modes):
        assert title in everything
        assert title in text  # named below the table where it is not in it


def test_columns_stay_out_by_rank_and_are_named() -> None:
    columns = [
        Column("path", ["a" * 30], is_text=True),
        Column("MACs", ["9" * 30], rank=1),
        Column("energy", ["1.23 mJ"]),
    ]
    narrow = shown_at(60, table_of(columns, width=60))
    assert "9" not in narrow and "1.23 mJ" in narrow and "wider terminals show MACs" in narrow
    assert "9" * 30 in shown_at(80, table_of(columns, width=80))


def test_a_change_is_per_cent_or_times() -> None:
    assert change(1.0, 1.25) == "+25.0 %" and change(2.0, 1.0) == "-50.0 %"
    assert change(1.0, 641.845) == "642x" and change(1.0, 0.25) == "4.0x less"
    assert change(1.0, 1.0 - 1e-9) == "0.0 %"
    assert change(1.0, 2500.0) == "2,500x"
    assert change(None, 1.0) == change(1.0, None) == "–"


def test_paths_priced_anew_are_titled_by_the_tool() -> None:
    row = {"id": "ab12", "stays": True, "energy_mj": 1.0, "latency_ms": 2.0}
    rows = ({**row, "energy_mj_rescored": 1.1, "latency_ms_rescored": None},)
    rescored = Rescored("magnet-16nm", rows, {"energy_mj": None, "latency_ms": None})
    text = shown_at(80, rescored_table(rescored, "mapper", width=80))
    assert "ZigZag's mapper: magnet-16nm" in text and "+10.0 %" in text
    assert "no longer on the front" not in text


def test_counts_agree_with_their_nouns() -> None:
    assert [counted(n, "path") for n in (0, 1, 2)] == ["0 paths", "1 path", "2 paths"]


def test_sensitivities_are_whole_at_80_columns() -> None:
    effects = tuple(
        Effect(f"stages.{i}.blocks.0.mlp_ratio", 0.5, 0.9, 0.01 * i, 0.02, 0.1) for i in range(3)
    )
    found = Sensitivity("top-1", "energy_mj", 0.9, 99, effects)
    text = shown_at(80, sensitivity_table(found, width=80))
    assert "…" not in text and "stages.2.blocks.0.mlp_ratio" in text and "+2.00 ± 2.00" in text
    assert "█" in shown_at(120, sensitivity_table(found, width=120))


def test_a_step_that_was_done_before_leaves_no_line() -> None:
    written = io.StringIO()
    with Progressing(Console(file=written, width=80, force_terminal=True), "training"):
        pass
    assert "0/?" not in written.getvalue().rsplit("\r", 1)[-1]


def test_a_phase_is_one_line_and_more_where_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    written, clock = io.StringIO(), iter([0.0, 1.0, 7.0, 8.0, 8.5, 9.0])
    monkeypatch.setattr("paretopath.cli.progressing.time.monotonic", lambda: next(clock))
    with Progressing(Console(file=written, width=80), "search") as bar:
        for done in range(4):
            bar.phase("tracing units", done, 3)
        bar.phase("opening the data", 0, 1)
        bar.phase("opening the data", 1, 1)
    lines = ["tracing units: 0/3", "tracing units: 2/3", "opening the data"]
    assert written.getvalue().splitlines() == lines


def test_each_phase_has_a_bar_of_its_own_on_a_terminal() -> None:
    written = io.StringIO()
    with Progressing(Console(file=written, width=80, force_terminal=True), "search") as bar:
        bar.phase("tracing units", 3, 3)
        bar.update(1, 4, "best 90.0 %")
    lines = written.getvalue().splitlines()
    assert any("tracing units" in line and "3/3" in line for line in lines)
    assert any("search" in line and "1/4" in line and "best 90.0 %" in line for line in lines)


@pytest.mark.parametrize(
    "cost, value, shown",
    [
        ("energy_mj", 0.5, "500 µJ of energy"),
        ("latency_ms", 2.5, "2.50 ms of latency"),
        ("activation_bytes", 3000, "3.00 kB of activation memory"),
        ("params", 1200, "1.20 k parameters"),
    ],
)
def test_a_search_shows_the_best_at_what_it_minimises(cost: str, value: float, shown: str) -> None:
    path, score = ExecutionPath({"i": 0}), Score(0.9, 0.01, 100)
    best = Evaluated(0, path, score, {cost: value}, True, TrialState.COMPLETE, None, {})
    written = io.StringIO()
    with Progressing(Console(file=written, width=80), "training") as bar:
        bar.search(SearchProgress(1, 8, 0, (), cost, best))
    assert written.getvalue() == f"search: 1/8 best 90.0 % at {shown}\n"
