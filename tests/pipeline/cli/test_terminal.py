"""What commands print."""

import io
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from paretopath.cli.progressing import Progressing
from paretopath.cli.tables.front import ROWS, excerpt
from paretopath.paths import ExecutionPath
from paretopath.run import Run


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
