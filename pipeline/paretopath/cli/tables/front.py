"""The paths of a front, and what decisions are worth."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from paretopath.costs import COSTS, cost_named
from paretopath.evaluation.sensitivity import Sensitivity
from paretopath.front import Front, Point, select, to_record
from paretopath.jobs import Rescored
from paretopath.paths import ExecutionPath
from paretopath.quantities import percent

ROWS = 24  # of a front that was not asked for by itself


def excerpt(front: Front) -> Sequence[Point]:
    """At most :data:`ROWS` points of a front, cheapest first: as many as a screen holds."""
    return select(front, f"count={ROWS}") if len(front.points) > ROWS else front.points


def front_table(front: Front, points: Sequence[Point]) -> Table:
    """The points of a front, cheapest first, beside what the full path costs."""
    retrained = any(p.retrained for p in (*points, front.full))
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("path", style="cyan", no_wrap=True)
    predicted = front.full.samples == 0
    columns = [f"{front.metric} (predicted)"] if predicted else [f"{front.metric} (val.)", "test"]
    columns += ["retrained (val.)", "retrained, test"] if retrained else []
    shown = [cost for cost in COSTS if cost.in_brief or cost.name == front.cost]
    for cost in shown:
        columns += [cost.title, "saved"] if cost.name == front.cost else [cost.title]
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    rows = [*points] if front.full in points else [*points, front.full]
    for point in rows:
        best = point.best_retrained
        if predicted:
            cells = [percent(point.accuracy)]
        else:
            cells = [percent(point.accuracy, point.accuracy_error)]
            cells += [percent(point.test_accuracy, point.test_error)]
        if retrained:
            cells += [percent(best.accuracy, best.error) if best else "–"]
            cells += [percent(best.test_accuracy, best.test_error) if best else "–"]
        for cost in shown:
            cells.append(cost.text(point.cost(cost.name)))
            cells += [percent(front.saved(point))] if cost.name == front.cost else []
        name = f"{point.id} (full)" if point.id == front.full.id else point.id
        table.add_row(name, *cells)
    return table


def front_json(front: Front, points: Sequence[Point]) -> dict[str, Any]:
    """A front, or a selection of it, for machines."""
    return {
        "hardware": front.hardware,
        "metric": front.metric,
        "hypervolume": front.hypervolume,
        "full": to_record(front.full),
        "points": [to_record(point) for point in points],
    }


def describe(path: ExecutionPath, full: ExecutionPath) -> str:
    """What a path does otherwise than the full one, in one line."""
    changed = [f"{name}={value}" for name, value in path.items() if full.get(name) != value]
    return ", ".join(changed) or "the full path"


def rescored_table(rescored: Rescored) -> Table:
    """Costs before, and by another cost model."""
    title = f"priced by {rescored.hardware}; * no longer on the front"
    table = Table(box=None, header_style="bold", pad_edge=False, title=title)
    table.add_column("path", style="cyan", no_wrap=True)
    for column in ("energy", "rescored", "change", "latency", "rescored", "change"):
        table.add_column(column, justify="right", no_wrap=True)
    costs = [cost_named(name) for name in ("energy_mj", "latency_ms")]
    for row in rescored.rows:
        cells = []
        for cost in costs:
            before, after = row[cost.name], row[f"{cost.name}_rescored"]
            change = after / before - 1 if before and after is not None else None
            changed = "–" if change is None else f"{100 * change:+.1f} %"
            cells += [cost.text(before), cost.text(after), changed]
        table.add_row(row["id"] + ("" if row["stays"] else " *"), *cells)
    found = [rescored.rank_correlations[cost.name] for cost in costs]
    energy, latency = ("–" if value is None else f"{value:.3f}" for value in found)
    table.add_row("rank correlation", "", "", energy, "", "", latency, style="dim")
    return table


def sensitivity_table(found: Sensitivity) -> Table:
    """What single decisions lose and save, those that lose least for it first.

    The bar is the loss for each per cent that is saved, against the dearest one shown.
    """
    cost = cost_named(found.cost).title
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("decision", style="cyan", no_wrap=True)
    columns = ("value", f"{found.metric} lost", f"{cost} saved", "lost per 1 % saved")
    for title in columns:
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    ranked = found.ranked()
    dearest = max((effect.price for effect in ranked), default=0.0)
    for effect in ranked:
        lost = f"{100 * effect.lost:+.2f} ± {100 * effect.lost_error:.2f}"
        share = max(effect.price, 0.0) / dearest if dearest > 0 else 0.0
        table.add_row(
            effect.decision,
            str(effect.value),
            lost,
            f"{100 * effect.saved:.2f} %",
            f"{effect.price:+.3f}",
            Text("█" * max(1, round(16 * share)), style=_warmth(share)),
        )
    return table


def _warmth(share: float) -> str:
    return "green" if share < 0.1 else "yellow" if share < 0.4 else "red"
