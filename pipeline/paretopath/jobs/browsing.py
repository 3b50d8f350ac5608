"""What people browse in W&B of a run beside its curves: its front, and what came of its paths."""

from collections.abc import Sequence
from pathlib import Path

from paretopath.cost import CostTable
from paretopath.errors import InvalidValueError
from paretopath.evaluation.sensitivity import Sensitivity
from paretopath.front import Front, Point, TrialRecord, select
from paretopath.jobs.pictures import load_pictures
from paretopath.run import Run, build_searched, build_space, build_table
from paretopath.showing.breakdown import Row
from paretopath.showing.measure import load_measured
from paretopath.showing.profile import LayerPricer, profile_path
from paretopath.showing.report import UnitCost
from paretopath.showing.tracking import Tracker, Tracking


def show_search(
    run: Run,
    table: CostTable,
    tracker: Tracker,
    front: Front,
    trials: Sequence[TrialRecord],
) -> None:
    """Shows a front with its trials, the costs of its paths, and the sensitivity if it is known."""
    measured = run.sensitivity_file
    tracker.show(
        front,
        trials,
        unit_costs=unit_costs(table, front),
        kind_costs=kind_costs(table, front, run.recipe.retrain.select),
        sensitivity=Sensitivity.load(measured) if measured.is_file() else None,
        pictures=load_pictures(run),
        files=_files(run),
    )


def track_sensitivity(run: Run, tracking: Tracking) -> None:
    """Shows the search again in its own W&B run, now with the sensitivity."""
    tracker = tracking.start("search", "search", config=run.recipe.dump())
    space = build_space(run.recipe)
    table = build_table(run, space)
    show_search(run, table, tracker, run.front(), run.trials(build_searched(run.recipe, space)))
    tracker.finish()


def track_outcome(run: Run, tracking: Tracking) -> None:
    """Brings what came of a front onto one chart, in a W&B run of its own: accuracies before and
    after retraining, with latency and energy where they were measured.
    """
    front = run.front()
    tracker = tracking.start("summary", "summary", config=run.recipe.dump())
    tracker.show_outcome(
        front,
        measured=load_measured(run.measured_file),
        pictures=load_pictures(run),
        files=_files(run),
    )
    tracker.finish()


def unit_costs(table: CostTable, front: Front) -> dict[str, list[UnitCost]]:
    """What the units of the front's paths and of the full path cost, by path id."""
    costs = {}
    for point in front.everyone.values():
        units = table.breakdown(point.path)
        costs[point.id] = [UnitCost(unit.unit, unit.costs) for unit in units]
    return costs


def kind_costs(table: CostTable, front: Front, selection: str) -> dict[str, tuple[Row, ...]]:
    """What kinds of operators take in the paths that are selected for retraining and in the full
    one, by path id; nothing where the cost model can't price single operators.
    """
    if not isinstance(table.cost_model, LayerPricer):
        return {}
    points = {point.id: point for point in (*_selected(front, selection), front.full)}
    return {point.id: profile_path(table, point.path).by_kind for point in points.values()}


def _selected(front: Front, selection: str) -> Sequence[Point]:
    try:
        return select(front, selection)
    except InvalidValueError:  # such as a budget that no path fits: asked for later, not here
        return front.points


def _files(run: Run) -> list[Path]:
    files = (run.front_file, run.recipe_file, run.sensitivity_file, run.measured_file)
    return [file for file in files if file.is_file()]
