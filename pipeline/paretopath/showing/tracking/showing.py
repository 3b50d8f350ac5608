"""What a W&B run gets to show: tables, charts, pictures, a summary and an artifact."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paretopath.front import Front, hypervolume
from paretopath.showing.tracking.charts import (
    Rows,
    front_rows,
    kind_rows,
    line_rows,
    outcome_rows,
    policy_rows,
    sensitivity_rows,
    trial_rows,
    unit_rows,
)
from paretopath.showing.tracking.figures import (
    front_figure,
    kind_figure,
    outcome_figure,
    parallel_figure,
    sensitivity_figure,
    unit_figure,
)
from paretopath.showing.tracking.messages import Show, ShowOutcome
from paretopath.showing.tracking.pictures import leaving_of, pictures_of


def show_front(handle: Any, show: Show, group: str, *, step: int) -> None:
    """Shows a search.

    Args:
        handle: wandb's run.
        show: what to show.
        group: the search's name, for charts over several.
        step: of the history.
    """
    import wandb

    front = show.front
    shown: dict[str, Any] = {
        "trials": _table(trial_rows(show.trials)),
        "front": _table(front_rows(front)),
        "front_chart": _front_chart(front, group),
        "front_figure": wandb.Plotly(front_figure(front, show.trials)),
        "trials_figure": wandb.Plotly(parallel_figure(front, show.trials)),
    }
    if show.unit_costs:
        shown["unit_costs"] = _table(unit_rows(show.unit_costs))
        selected = [path for path in show.kind_costs if path in show.unit_costs]
        figure = unit_figure(show.unit_costs, selected or list(show.unit_costs))
        shown["unit_costs_figure"] = wandb.Plotly(figure)
    if show.kind_costs:
        shown["kind_costs"] = _table(kind_rows(show.kind_costs))
        shown["kind_costs_figure"] = wandb.Plotly(kind_figure(show.kind_costs))
    if show.sensitivity:
        shown["sensitivity"] = _table(sensitivity_rows(show.sensitivity))
        shown["sensitivity_figure"] = wandb.Plotly(sensitivity_figure(show.sensitivity))
    if show.pictures:
        shown |= pictures_of(show.pictures, front)
    handle.log(shown, step=step, commit=True)
    states = [trial.state for trial in show.trials]
    counts = {f"{state}_trials": states.count(state) for state in dict.fromkeys(states)}
    handle.summary.update(plain(_front_summary(front) | counts))
    _keep(handle, f"front-{handle.id}", "front", show.files)


def show_outcome(handle: Any, show: ShowOutcome, group: str, *, step: int) -> None:
    """Shows what came of a search's paths; the arguments are those of :func:`show_front`."""
    import wandb

    front = show.front
    shown: dict[str, Any] = {
        "paths": _table(outcome_rows(front, show.measured)),
        "front_chart": _front_chart(front, group),
        "outcome_figure": wandb.Plotly(outcome_figure(front, show.measured)),
    }
    if front.policies:
        shown["policies"] = _table(policy_rows(front))
    if show.pictures:
        shown |= leaving_of(show.pictures, front)
    handle.log(shown, step=step, commit=True)
    handle.summary.update(plain(_front_summary(front) | _outcome_summary(show)))
    _keep(handle, f"outcome-{handle.id}", "outcome", show.files)


def plain(values: Any) -> Any:
    """What W&B takes: mappings with text as keys, lists, and numbers that are finite."""
    if isinstance(values, Mapping):
        found = {str(name): plain(value) for name, value in values.items()}
        return {name: value for name, value in found.items() if value is not None}
    if isinstance(values, list | tuple):
        return [plain(value) for value in values]
    if isinstance(values, float) and not math.isfinite(values):
        return None
    return values if isinstance(values, bool | int | float | str | None) else str(values)


def _table(rows: Rows) -> Any:
    import wandb

    return wandb.Table(columns=rows[0], data=rows[1])


def _front_chart(front: Front, group: str) -> Any:
    """One of W&B's own Vega charts, which it draws without a preset stored on the server first."""
    import wandb

    title = f"{front.metric}, {front.hardware}"
    table = _table(line_rows(front, group))
    return wandb.plot.line(table, front.cost, "accuracy", stroke="series", title=title)


def _keep(handle: Any, name: str, kind: str, files: Sequence[Path]) -> None:
    import wandb

    artifact = wandb.Artifact(name, type=kind)
    for file in files:
        artifact.add_file(str(file))
    handle.log_artifact(artifact)


def _front_summary(front: Front) -> dict[str, Any]:
    return {
        "hypervolume": front.hypervolume,
        "front_points": len(front.points),
        "full_accuracy": front.full.accuracy,
        "full_" + front.cost: front.cost_of(front.full),
        "hardware": front.hardware,
        "metric": front.metric,
    }


def _outcome_summary(show: ShowOutcome) -> dict[str, Any]:
    """How much retraining brought, and what was measured."""
    front, full = show.front, show.front.cost_of(show.front.full)
    measured = next(iter(show.measured.values()), None)
    after = [point for point in front.points if point.retrained_accuracy is not None]
    gains = [(point.retrained_accuracy or 0.0) - point.accuracy for point in after]
    best = [point.best_accuracy for point in front.points]
    costs = [front.cost_of(point) for point in front.points]
    return {
        "retrained_paths": len(after),
        "mean_gain": sum(gains) / len(gains) if gains else None,
        "best_gain": max(gains, default=None),
        "hypervolume_after": hypervolume(best, costs, front.reference) / full,
        "measured_paths": len(show.measured),
        "measured_on": measured.hardware if measured else None,
    }
