"""The paths of a front, and what decisions are worth."""

from collections.abc import Sequence
from typing import Any

from rich.table import Table

from paretopath.cli.tables.columns import ANY_WIDTH, Column, table_of
from paretopath.costs import COSTS, cost_named
from paretopath.evaluation.sensitivity import Sensitivity
from paretopath.front import Front, Point, select, to_record
from paretopath.jobs import Rescored
from paretopath.paths import ExecutionPath
from paretopath.quantities import UNKNOWN, percent, words

ROWS = 24  # of a front that was not asked for by itself


def excerpt(front: Front) -> Sequence[Point]:
    """At most :data:`ROWS` points of a front, cheapest first: as many as a screen holds."""
    return select(front, f"count={ROWS}") if len(front.points) > ROWS else front.points


def front_table(
    front: Front, points: Sequence[Point], *, mode: str | None = None, width: int = ANY_WIDTH
) -> Table:
    """The points of a front, cheapest first, beside what the full path costs.

    Args:
        front: that has the points.
        points: those to show.
        mode: the retraining whose accuracies are shown; each that there was if None.
        width: of the screen.
    """
    rows = [*points] if front.full in points else [*points, front.full]
    names = [f"{p.id}\n(full)" if p.id == front.full.id else p.id for p in rows]
    columns = [Column("path", names, style="cyan", is_text=True), *_accuracies(front, rows)]
    columns += _retrained(rows, mode)
    for cost in COSTS:
        if cost.name == front.cost:
            columns.append(Column(cost.title, [cost.text(p.cost(cost.name)) for p in rows]))
            columns.append(Column("saved", [percent(front.saved(p)) for p in rows], rank=1))
        elif cost.in_brief:
            cells = [cost.text(p.cost(cost.name)) for p in rows]
            columns.append(Column(cost.title, cells, rank=_RANKS.get(cost.name, 3)))
    return table_of(columns, width=width)


_RANKS = {"params": 5, "macs": 4, "latency_ms": 2, "energy_mj": 2}  # what stays out first


def _accuracies(front: Front, rows: Sequence[Point]) -> list[Column]:
    """Before retraining."""
    if front.full.samples == 0:
        columns = [Column(f"{front.metric}\n(predicted)", [percent(p.accuracy) for p in rows])]
    else:
        validation = [percent(p.accuracy, p.accuracy_error) for p in rows]
        test = [percent(p.test_accuracy, p.test_error) for p in rows]
        columns = [
            Column(f"{front.metric}\n(val.)", validation),
            Column(f"{front.metric}\n(test)", test, rank=3),
        ]
    return columns


def _retrained(rows: Sequence[Point], mode: str | None) -> list[Column]:
    """After retraining, mode by mode."""
    found = sorted({name for point in rows for name in point.retrained})
    modes = found if mode is None else [mode]
    columns = []
    for name in modes:
        made = [point.retrained.get(name) for point in rows]
        validation = [percent(m.accuracy, m.error) if m else UNKNOWN for m in made]
        test = [percent(m.test_accuracy, m.test_error) if m else UNKNOWN for m in made]
        title = f"retrained\n{words(name)}"
        columns.append(Column(f"{title}\n(val.)", validation))
        rank = 0 if len(modes) == 1 else 2
        columns.append(Column(f"{title}\n(test)", test, rank=rank))
    return columns


def front_json(front: Front, points: Sequence[Point], mode: str | None = None) -> dict[str, Any]:
    """A front, or a selection of it, for machines.

    Args:
        front: that has the points.
        points: those to show.
        mode: the retraining whose accuracies are shown; each point's best if None.
    """
    return {
        "hardware": front.hardware,
        "metric": front.metric,
        "hypervolume": front.hypervolume,
        "full": to_record(front.full, mode),
        "points": [to_record(point, mode) for point in points],
    }


def describe(path: ExecutionPath, full: ExecutionPath) -> str:
    """What a path does otherwise than the full one, in one line."""
    changed = [f"{name}={value}" for name, value in path.items() if full.get(name) != value]
    return ", ".join(changed) or "the full path"


_TOOLS = {"mapper": "ZigZag's mapper", "device": "this device"}


def rescored_table(rescored: Rescored, tool: str, *, width: int = ANY_WIDTH) -> Table:
    """Costs before, and by another cost model.

    Args:
        rescored: the costs.
        tool: ``mapper`` or ``device``.
        width: of the screen.
    """
    names = [*(row["id"] + ("" if row["stays"] else " *") for row in rescored.rows), "rank corr."]
    columns = [Column("path", names, style="cyan", is_text=True)]
    for cost in (cost_named(name) for name in ("energy_mj", "latency_ms")):
        before = [row[cost.name] for row in rescored.rows]
        after = [row[f"{cost.name}_rescored"] for row in rescored.rows]
        found = rescored.rank_correlations[cost.name]
        columns += [
            Column(cost.title, [*map(cost.text, before), ""]),
            Column("priced anew", [*map(cost.text, after), ""]),
            Column(
                "change",
                [*map(change, before, after), UNKNOWN if found is None else f"{found:.3f}"],
            ),
        ]
    title = f"priced anew by {_TOOLS[tool]}: {rescored.hardware}"
    if not all(row["stays"] for row in rescored.rows):
        title += "; * no longer on the front"
    return table_of(columns, width=width, title=title)


def change(before: float | None, after: float | None) -> str:
    """From one value to another: in per cent, or how many times where it is far away."""
    if not before or not after:
        return UNKNOWN
    ratio = after / before
    if 0.5 <= ratio <= 2:
        rounded = round(100 * (ratio - 1), 1)
        return f"{rounded:+.1f} %" if rounded else "0.0 %"
    times = max(ratio, 1 / ratio)
    return f"{times:,.{0 if times >= 100 else 1}f}x{' less' if ratio < 1 else ''}"


def sensitivity_table(found: Sensitivity, *, width: int = ANY_WIDTH) -> Table:
    """What single decisions lose and save, those that lose least for it first.

    The bar is the loss for each per cent that is saved, against the dearest one shown.
    """
    ranked = found.ranked()
    dearest = max((effect.price for effect in ranked), default=0.0)
    lost = [f"{100 * e.lost:+.2f} ± {100 * e.lost_error:.2f}" for e in ranked]
    saved = [f"{100 * e.saved:.2f} %" for e in ranked]
    shares = [max(e.price, 0.0) / dearest if dearest > 0 else 0.0 for e in ranked]
    bars = [f"[{_warmth(s)}]{'█' * max(1, round(16 * s))}[/]" for s in shares]
    columns = [
        Column("decision", [e.decision for e in ranked], style="cyan", is_text=True),
        Column("value", [str(e.value) for e in ranked]),
        Column(f"{found.metric}\nlost", lost),
        Column(f"{cost_named(found.cost).title}\nsaved", saved),
        Column("lost per\n1 % saved", [f"{e.price:+.3f}" for e in ranked], rank=1),
        Column("", bars, rank=2, is_text=True),
    ]
    return table_of(columns, width=width)


def _warmth(share: float) -> str:
    return "green" if share < 0.1 else "yellow" if share < 0.4 else "red"
