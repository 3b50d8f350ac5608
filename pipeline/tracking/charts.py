"""What people browse in W&B: tables, rows of charts, and the plotly figure of a front."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.front import COSTS, CostName, Front, Point, TrialRecord
from pipeline.paths import ExecutionPath
from pipeline.report import UnitCost

Rows = tuple[list[str], list[list[Any]]]
"""Column names, and rows of plain values; None where there is none."""

AXIS_TITLES: Mapping[CostName, str] = {
    "energy_mj": "energy (mJ per image)",
    "latency_ms": "latency (ms per image)",
    "macs": "MACs per image",
    "params": "parameters",
    "dram_bytes": "DRAM traffic (bytes per image)",
}


def trial_rows(trials: Sequence[TrialRecord]) -> Rows:
    """Every trial with its costs and, in a column each, its decisions: for parallel coordinates."""
    decisions = _decisions(trial.path for trial in trials)
    columns = ["trial", "path", "state", "accuracy", "accuracy_error", "samples", *COSTS]
    rows = [
        [
            *(t.number, t.path.id, t.state, t.accuracy, t.accuracy_error, t.samples),
            *(t.costs.get(name) for name in COSTS),
            *(t.path.get(name) for name in decisions),
        ]
        for t in trials
    ]
    return columns + decisions, _uniform(rows)


def front_rows(front: Front) -> Rows:
    """The points of the front and the full path: accuracies before and after, costs, decisions."""
    points = list({point.id: point for point in (*front.points, front.full)}.values())
    modes = sorted({mode for point in points for mode in point.retrained})
    decisions = _decisions(point.path for point in (front.full, *points))
    columns = ["path", "trial", "accuracy", "accuracy_error", "test_accuracy"]
    columns += [f"{mode}_{name}" for mode in modes for name in ("accuracy", "test_accuracy")]
    columns += ["saved", *COSTS, *decisions]
    rows = []
    for point in points:
        after = [point.retrained.get(mode) for mode in modes]
        row: list[Any] = [point.id, point.number, point.accuracy, point.accuracy_error]
        row.append(point.test_accuracy)
        for result in after:
            row += [result.accuracy, result.test_accuracy] if result else [None, None]
        row += [front.saved(point), *(point.cost(name) for name in COSTS)]
        rows.append(row + [point.path.get(name) for name in decisions])
    return columns, _uniform(rows)


def line_rows(front: Front) -> Rows:
    """The lines of the front's chart: (cost, accuracy, series), one series a kind of weights."""
    rows: list[list[Any]] = [[front.cost_of(p), p.accuracy, "searched"] for p in front.points]
    modes = sorted({mode for point in front.points for mode in point.retrained})
    for mode in modes:
        rows += [
            [front.cost_of(p), p.retrained[mode].accuracy, f"retrained ({mode})"]
            for p in front.points
            if mode in p.retrained
        ]
    return [front.cost, "accuracy", "series"], rows


def unit_rows(unit_costs: Mapping[str, Sequence[UnitCost]]) -> Rows:
    """What each unit of each path costs, in the order of the forward pass."""
    every_unit = [unit for units in unit_costs.values() for unit in units]
    names = [name for name in COSTS if any(name in unit.costs for unit in every_unit)]
    rows = [
        [path, position, unit.unit, *(unit.costs.get(name) for name in names)]
        for path, units in unit_costs.items()
        for position, unit in enumerate(units)
    ]
    return ["path", "position", "unit", *names], rows


def front_figure(front: Front, trials: Sequence[TrialRecord]) -> Any:
    """The front as an interactive plotly figure: trials, front, retrained paths, the full path."""
    import plotly.graph_objects as go

    figure = go.Figure()
    shown = [t for t in trials if t.accuracy is not None and front.cost in t.costs]
    figure.add_scatter(
        x=[t.costs[front.cost] for t in shown],
        y=[t.accuracy for t in shown],
        mode="markers",
        name="trials",
        marker={"color": "#9aa0a6", "size": 5, "opacity": 0.5},
        text=[f"trial {t.number}<br>{_path_text(t.path, front.full.path)}" for t in shown],
    )
    figure.add_scatter(
        x=[front.cost_of(p) for p in front.points],
        y=[p.accuracy for p in front.points],
        error_y={"type": "data", "array": [p.accuracy_error for p in front.points], "width": 0},
        mode="lines+markers",
        name="front",
        line={"shape": "hv", "color": "#2b5fd9", "width": 1.5},
        text=[_point_text(p, front) for p in front.points],
    )
    _, lines = line_rows(front)
    for series in dict.fromkeys(row[2] for row in lines if row[2] != "searched"):
        rows = [row for row in lines if row[2] == series]
        figure.add_scatter(
            x=[row[0] for row in rows],
            y=[row[1] for row in rows],
            mode="lines+markers",
            name=series,
            line={"dash": "dot", "width": 1},
            marker={"symbol": "diamond", "size": 9},
        )
    figure.add_scatter(
        x=[front.cost_of(front.full)],
        y=[front.full.accuracy],
        mode="markers",
        name="full path",
        marker={"symbol": "star", "size": 12, "color": "#191b1f"},
        text=[_point_text(front.full, front)],
    )
    figure.update_layout(
        template="plotly_white",
        xaxis_title=f"{AXIS_TITLES[front.cost]}, {_escaped(front.hardware)}",
        yaxis_title=f"{_escaped(front.metric)} ({_escaped(front.accuracy_source)})",
        hovermode="closest",
    )
    return figure


def _uniform(rows: Sequence[list[Any]]) -> list[list[Any]]:
    """Rows whose columns hold words alone if they hold any: W&B does not mix them with numbers."""
    columns = []
    for column in zip(*rows, strict=True):
        kinds = {isinstance(value, str) for value in column if value is not None}
        mixed = len(kinds) > 1
        columns.append([str(v) if mixed and v is not None else v for v in column])
    return [list(row) for row in zip(*columns, strict=True)]


def _decisions(paths: Any) -> list[str]:
    """The decisions of some paths, in the order in which they are first met."""
    return list(dict.fromkeys(name for path in paths for name in path))


def _point_text(point: Point, front: Front) -> str:
    saved = f"{front.saved(point):.0%} saved"
    return f"{point.id}, {saved}<br>{_path_text(point.path, front.full.path)}"


def _path_text(path: ExecutionPath, full: ExecutionPath) -> str:
    """How a path differs from the full one, in at most a dozen lines."""
    changed = [f"{n} {v}" for n, v in path.items() if full.get(n) != v]
    if not changed:
        return "full path"
    rest = [f"and {len(changed) - 12} more"] if len(changed) > 12 else []
    return "<br>".join(_escaped(line) for line in changed[:12] + rest)


def _escaped(text: str) -> str:
    """For plotly, which reads some tags."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
