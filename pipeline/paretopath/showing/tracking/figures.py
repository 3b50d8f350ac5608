"""What people browse in W&B as pictures: plotly figures, which W&B draws as they are."""

from collections.abc import Mapping, Sequence
from typing import Any

from paretopath.costs import COSTS, CostName, cost_named
from paretopath.evaluation.sensitivity import Sensitivity
from paretopath.front import DynamicPoint, Front, Point, TrialRecord
from paretopath.paths import ExecutionPath, Value
from paretopath.quantities import percent
from paretopath.showing.breakdown import Measured, Row
from paretopath.showing.report import UnitCost
from paretopath.showing.tracking.charts import line_rows

MOST_AXES = 16
"""How many decisions a parallel-coordinates chart of trials shows: those that vary most."""

_GREY, _BLUE, _BLACK, _ORANGE = "#9aa0a6", "#2b5fd9", "#191b1f", "#c2571a"


def front_figure(front: Front, trials: Sequence[TrialRecord]) -> Any:
    """The front as an interactive plotly figure: trials, front, retrained paths, the full path."""
    import plotly.graph_objects as go

    figure = go.Figure()
    shown = [t for t in trials if t.accuracy is not None and front.cost in t.costs]
    kinds = {"trials": ("circle", "complete"), "stopped early": ("x-thin-open", "stopped")}
    for name, (symbol, state) in kinds.items():
        of_kind = [t for t in shown if t.state == state]
        figure.add_scatter(
            x=[t.costs[front.cost] for t in of_kind],
            y=[t.accuracy for t in of_kind],
            mode="markers",
            name=name,
            marker={"color": _GREY, "size": 5, "opacity": 0.5, "symbol": symbol},
            text=[
                f"trial {t.number}, {t.samples} images<br>{_path_text(t.path, front.full.path)}"
                for t in of_kind
            ],
        )
    figure.add_scatter(
        x=[front.cost_of(p) for p in front.points],
        y=[p.accuracy for p in front.points],
        error_y={"type": "data", "array": [p.accuracy_error for p in front.points], "width": 0},
        mode="lines+markers",
        name="front",
        line={"shape": "hv", "color": _BLUE, "width": 1.5},
        text=[_point_text(p, front) for p in front.points],
    )
    _, lines = line_rows(front, "")
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
        marker={"symbol": "star", "size": 12, "color": _BLACK},
        text=[_point_text(front.full, front)],
    )
    figure.update_xaxes(title=_cost_title(front))
    figure.update_yaxes(
        title=f"{_escaped(front.metric)} ({_escaped(front.accuracy_source)})", tickformat=".1%"
    )
    return figure.update_layout(template="plotly_white", hovermode="closest", margin={"t": 30})


def parallel_figure(front: Front, trials: Sequence[TrialRecord]) -> Any:
    """Parallel coordinates of the trials that gave an accuracy: the decisions that vary most, what
    they cost, and how accurate they are.
    """
    import plotly.graph_objects as go

    shown = [t for t in trials if t.accuracy is not None and front.cost in t.costs]
    axes = [_decision_axis(name, [t.path.get(name) for t in shown]) for name in _varied(shown)]
    accuracy = [t.accuracy for t in shown]
    axes.append({"label": front.cost, "values": [t.costs[front.cost] for t in shown]})
    axes.append({"label": _escaped(front.metric), "values": accuracy, "tickformat": ".1%"})
    colors = {"colorscale": "Viridis", "showscale": True, "colorbar": {"tickformat": ".1%"}}
    lines = go.Parcoords(dimensions=axes, line={"color": accuracy} | colors, labelangle=-30)
    return go.Figure(lines).update_layout(
        template="plotly_white",
        title=f"{len(shown)} trials, {_escaped(front.hardware)}",
        margin={"t": 150},  # for names that are long
    )


def sensitivity_figure(found: Sensitivity) -> Any:
    """A heat map: a row for each part of the model, a column for each thing done to it, what it
    loses as the colour.
    """
    import plotly.graph_objects as go

    cells = {}
    for effect in found.effects:
        part, _, what = effect.decision.rpartition(".")
        cells[part or "model", f"{what} {effect.value}"] = effect
    rows = list(dict.fromkeys(row for row, _ in cells))
    columns = list(dict.fromkeys(column for _, column in cells))
    grid = [[cells.get((row, column)) for column in columns] for row in rows]
    heat = go.Heatmap(
        x=columns,
        y=rows,
        z=[[None if e is None else 100 * e.lost for e in line] for line in grid],
        text=[
            ["" if e is None else f"± {100 * e.lost_error:.2f}, saves {e.saved:.2%}" for e in line]
            for line in grid
        ],
        texttemplate="%{z:.1f}",
        hovertemplate="%{y}, %{x}: loses %{z:.2f} %{text}<extra></extra>",
        colorscale="RdBu_r",
        zmid=0,
    )
    figure = go.Figure(heat)
    figure.update_xaxes(showgrid=False)
    figure.update_yaxes(showgrid=False, autorange="reversed")  # from the model's input downwards
    title = f"{_escaped(found.metric)} lost by each decision alone, in points, on {found.samples}"
    title += f" images; hover: {found.cost} saved"
    return figure.update_layout(
        template="plotly_white", title=title, height=max(450, 22 * len(rows) + 180)
    )


def unit_figure(unit_costs: Mapping[str, Sequence[UnitCost]], paths: Sequence[str]) -> Any:
    """What the units of some paths take, as stacked bars."""
    from plotly.colors import sample_colorscale

    parts = {path: {unit.unit: unit.costs for unit in unit_costs[path]} for path in paths}
    units = list(dict.fromkeys(unit for found in parts.values() for unit in found))
    shades = [i / max(1, len(units) - 1) for i in range(len(units))]  # by depth
    return _breakdown(parts, dict(zip(units, sample_colorscale("Viridis", shades), strict=True)))


def kind_figure(kind_costs: Mapping[str, Sequence[Row]]) -> Any:
    """What the kinds of operators of some paths take, as stacked bars."""
    from plotly.colors import qualitative

    parts = {path: {row.name: row.costs for row in rows} for path, rows in kind_costs.items()}
    kinds = dict.fromkeys(row.name for rows in kind_costs.values() for row in rows)
    return _breakdown(parts, dict(zip(kinds, qualitative.T10, strict=False)))


def outcome_figure(front: Front, measured: Mapping[str, Measured]) -> Any:
    """The front before and after retraining, a line from one to the other for each path, the full
    path as a star; beside it the accuracy over the measured latency, and energy, of those paths
    that were measured.
    """
    from plotly.subplots import make_subplots

    points = list(front.everyone.values())
    columns: dict[str, Mapping[str, float | None]] = {
        _cost_title(front): {p.id: front.cost_of(p) for p in points}
    }
    if measured:
        one = next(iter(measured.values()))
        device = f"measured on<br>{_escaped(one.hardware)}"
        latency = {path: found.latency_ms for path, found in measured.items()}
        columns[f"latency (ms per image) {device}"] = latency
        if one.energy_mj is not None:
            energy = {path: found.energy_mj for path, found in measured.items()}
            columns[f"energy (mJ per image) {device}"] = energy
    figure = make_subplots(cols=len(columns), shared_yaxes=True, horizontal_spacing=0.04)
    for column, (title, costs) in enumerate(columns.items(), start=1):
        figure.update_xaxes(title=title, rangemode="tozero", col=column)
        known = [(p, cost) for p in points if (cost := costs.get(p.id)) is not None]
        after = [(p, cost) for p, cost in known if p.retrained_accuracy is not None]
        for name, shown, color in (("before", known, _GREY), ("after retraining", after, _BLUE)):
            figure.add_scatter(
                row=1,
                col=column,
                x=[cost for _, cost in shown],
                y=[p.accuracy if name == "before" else p.retrained_accuracy for p, _ in shown],
                mode="markers",
                name=name,
                legendgroup=name,
                showlegend=column == 1,
                marker={
                    "color": color,
                    "size": 8,
                    "symbol": ["star" if p.id == front.full.id else "circle" for p, _ in shown],
                },
                text=[_point_text(p, front) for p, _ in shown],
            )
        for point, cost in after:
            figure.add_scatter(
                row=1,
                col=column,
                x=[cost, cost],
                y=[point.accuracy, point.retrained_accuracy],
                mode="lines",
                line={"color": _BLUE, "width": 1},
                hoverinfo="skip",
                showlegend=False,
            )
    if front.policies:
        figure.add_scatter(
            row=1,
            col=1,
            x=[point.cost(front.cost) for point in front.policies],
            y=[point.validation.accuracy for point in front.policies],
            mode="markers",
            name="leaving early",
            marker={"color": _ORANGE, "size": 8, "symbol": "triangle-left"},
            text=[_policy_text(point) for point in front.policies],
        )
    figure.update_yaxes(tickformat=".1%")
    figure.update_yaxes(title=_escaped(front.metric), col=1)
    return figure.update_layout(template="plotly_white", hovermode="closest", margin={"t": 30})


def _breakdown(
    parts: Mapping[str, Mapping[str, Mapping[CostName, float]]], colors: Mapping[str, str]
) -> Any:
    """Stacked bars: a picture for each cost that is known and adds up, a bar for each path.

    Args:
        parts: the costs of each part of each path.
        colors: of the parts, in the order in which they are stacked.
    """
    from plotly.subplots import make_subplots

    known = [
        cost
        for cost in COSTS
        if cost.is_sum
        and any(cost.name in costs for found in parts.values() for costs in found.values())
    ]
    figure = make_subplots(rows=max(1, len(known)), shared_xaxes=True, vertical_spacing=0.05)
    figure.update_xaxes(type="category")  # an id may look like a number
    for row, cost in enumerate(known, start=1):
        figure.update_yaxes(title=cost.axis, row=row)
        for part, color in colors.items():
            figure.add_bar(
                row=row,
                col=1,
                x=list(parts),
                y=[found.get(part, {}).get(cost.name) for found in parts.values()],
                name=part,
                legendgroup=part,
                showlegend=row == 1,
                marker={"color": color},
            )
    return figure.update_layout(
        template="plotly_white",
        barmode="stack",
        margin={"t": 30},
        height=250 * max(1, len(known)) + 80,
    )


def _cost_title(front: Front) -> str:
    return f"{cost_named(front.cost).axis}, {_escaped(front.hardware)}"


def _varied(trials: Sequence[TrialRecord]) -> list[str]:
    """The decisions that take the most values, in the order of the model."""
    values: dict[str, set[Value | None]] = {}
    for trial in trials:
        for name in trial.path:
            values.setdefault(name, set()).add(trial.path[name])
    varied = [name for name, found in values.items() if len(found) > 1]
    kept = sorted(varied, key=lambda name: -len(values[name]))[:MOST_AXES]
    return [name for name in varied if name in kept]


def _decision_axis(name: str, values: Sequence[Value | None]) -> dict[str, Any]:
    """An axis with a tick for each value; the lowest for paths that lack the decision."""
    known = {value for value in values if value is not None}
    text = any(isinstance(value, str) for value in known)
    order = sorted(known, key=str) if text else sorted(known, key=lambda value: float(value))
    ticks: list[Value | None] = [*([None] if None in values else []), *order]
    return {
        "label": name,
        "values": [ticks.index(value) for value in values],
        "tickvals": list(range(len(ticks))),
        "ticktext": ["absent" if value is None else str(value) for value in ticks],
    }


def _policy_text(point: DynamicPoint) -> str:
    shares = zip(point.policy.exits, point.validation.shares, strict=True)
    leave = "<br>".join(f"{_escaped(name)}: {percent(share)} leave" for name, share in shares)
    return f"{point.path.id}, {point.policy.confidence}<br>{leave}"


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
