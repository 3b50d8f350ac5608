"""What people browse in W&B as tables: trials, fronts, costs, sensitivity, and rows of charts."""

from collections.abc import Mapping, Sequence
from typing import Any

from paretopath.costs import COST_NAMES
from paretopath.evaluation.sensitivity import Sensitivity
from paretopath.front import Front, TrialRecord
from paretopath.paths import ExecutionPath, Value
from paretopath.quantities import words
from paretopath.showing.breakdown import Measured, Row
from paretopath.showing.report import UnitCost

Rows = tuple[list[str], list[list[Any]]]
"""Column names, and rows of plain values; None where there is none."""


def trial_rows(trials: Sequence[TrialRecord]) -> Rows:
    """Every trial with its costs and, in a column each, its decisions: for parallel coordinates."""
    decisions = _decisions(trial.path for trial in trials)
    columns = ["trial", "path", "state", "accuracy", "accuracy_error", "samples", *COST_NAMES]
    rows = [
        [
            *(t.number, t.path.id, t.state, t.accuracy, t.accuracy_error, t.samples),
            *(t.costs.get(name) for name in COST_NAMES),
            *(t.path.get(name) for name in decisions),
        ]
        for t in trials
    ]
    return columns + decisions, _uniform(rows)


def front_rows(front: Front) -> Rows:
    """The points of the front and the full path: accuracies before and after, costs, decisions."""
    points = list(front.everyone.values())
    modes = sorted({mode for point in points for mode in point.retrained})
    decisions = _decisions(point.path for point in (front.full, *points))
    columns = ["path", "trial", "accuracy", "accuracy_error", "test_accuracy"]
    columns += [f"{mode}_{name}" for mode in modes for name in ("accuracy", "test_accuracy")]
    columns += ["saved", *COST_NAMES, *decisions]
    rows = []
    for point in points:
        after = [point.retrained.get(mode) for mode in modes]
        row: list[Any] = [point.id, point.number, point.accuracy, point.accuracy_error]
        row.append(point.test_accuracy)
        for result in after:
            row += [result.accuracy, result.test_accuracy] if result else [None, None]
        row += [front.saved(point), *(point.cost(name) for name in COST_NAMES)]
        rows.append(row + [point.path.get(name) for name in decisions])
    return columns, _uniform(rows)


def line_rows(front: Front, search: str) -> Rows:
    """The lines of the front's chart, one series a kind of weights.

    Args:
        front: the front.
        search: what its search is called: with the hardware it tells lines of several searches
            apart, which charts over all of them go by.
    """
    lines = {"searched": [(front.cost_of(p), p.accuracy) for p in front.points]}
    for mode in sorted({mode for point in front.points for mode in point.retrained}):
        lines[f"retrained ({words(mode)})"] = [
            (front.cost_of(p), p.retrained[mode].accuracy)
            for p in front.points
            if mode in p.retrained
        ]
    rows: list[list[Any]] = [
        [cost, accuracy, series, f"{search}, {front.hardware}, {series}"]
        for series, points in lines.items()
        for cost, accuracy in points
    ]
    return [front.cost, "accuracy", "series", "line"], rows


def unit_rows(unit_costs: Mapping[str, Sequence[UnitCost]]) -> Rows:
    """What each unit of each path costs, in the order of the forward pass."""
    every_unit = [unit for units in unit_costs.values() for unit in units]
    names = [name for name in COST_NAMES if any(name in unit.costs for unit in every_unit)]
    rows = [
        [path, position, unit.unit, *(unit.costs.get(name) for name in names)]
        for path, units in unit_costs.items()
        for position, unit in enumerate(units)
    ]
    return ["path", "position", "unit", *names], rows


def kind_rows(kind_costs: Mapping[str, Sequence[Row]]) -> Rows:
    """What each kind of operator takes in each path."""
    rows = [
        [path, row.name, *(row.costs.get(name) for name in COST_NAMES)]
        for path, kinds in kind_costs.items()
        for row in kinds
    ]
    return ["path", "kind", *COST_NAMES], rows


def sensitivity_rows(found: Sensitivity) -> Rows:
    """What each decision alone loses and saves, those that lose least for it first; last, what
    saves nothing.
    """
    ranked = found.ranked()
    effects = [*ranked, *(effect for effect in found.effects if effect not in ranked)]
    rows: list[list[Any]] = [
        [
            *(e.decision, e.value, e.accuracy, e.lost, e.lost_error, e.saved),
            e.price if e.saved > 0 else None,
        ]
        for e in effects
    ]
    columns = ["decision", "value", "accuracy", "lost", "lost_error", "saved", "price"]
    return columns, _uniform(rows)


def outcome_rows(front: Front, measured: Mapping[str, Measured]) -> Rows:
    """:func:`front_rows`, with what was measured on a device."""
    columns, rows = front_rows(front)
    decisions = _decisions([front.full.path, *(point.path for point in front.points)])
    costs = len(columns) - len(decisions)
    names = ["measured_latency_ms", "measured_energy_mj", "measured_on", "measured_batch_size"]
    wider = []
    for row in rows:
        m = measured.get(row[0])
        cells = [m.latency_ms, m.energy_mj, m.hardware, m.batch_size] if m else [None] * 4
        wider.append([*row[:costs], *cells, *row[costs:]])
    return [*columns[:costs], *names, *columns[costs:]], wider


def policy_rows(front: Front) -> Rows:
    """The paths that images leave early: accuracies, what is lost, expected costs, and a row's part
    of the images that leave at each exit.
    """
    exits = list(dict.fromkeys(name for p in front.policies for name in p.policy.exits))
    columns = ["point", "path", "weights", "confidence", "accuracy", "accuracy_error", "loss"]
    columns += ["promised_loss", "test_accuracy", "test_loss", *COST_NAMES]
    rows: list[list[Any]] = []
    for point in front.policies:
        validation, test = point.validation, point.test
        shares = dict(zip(point.policy.exits, validation.shares, strict=True))
        rows.append(
            [
                *(point.id, point.path.id, point.weights, point.policy.confidence),
                *(validation.accuracy, validation.error, validation.loss, point.promised_loss),
                *((test.accuracy, test.loss) if test else (None, None)),
                *(point.cost(name) for name in COST_NAMES),
                *(shares.get(name) for name in exits),
            ]
        )
    return columns + [f"leave at {name}" for name in exits], _uniform(rows)


def plain_decisions(path: ExecutionPath) -> dict[str, Value]:
    """A path's decisions by names that W&B can address: it takes a dot for a step into a
    mapping.
    """
    return {axis_name(name): value for name, value in path.items()}


def axis_name(decision: str) -> str:
    """What a decision is called in the configuration of a W&B run."""
    return decision.replace(".", "/")


def _uniform(rows: Sequence[list[Any]]) -> list[list[Any]]:
    """Rows whose columns hold one kind of value: W&B does not mix words, truths and numbers, so
    such columns become words.
    """
    columns = []
    for column in zip(*rows, strict=True):
        mixed = len({_kind(value) for value in column if value is not None}) > 1
        columns.append([str(v) if mixed and v is not None else v for v in column])
    return [list(row) for row in zip(*columns, strict=True)]


def _kind(value: Value) -> type:
    """Numbers are of one kind, whole or not."""
    return float if type(value) is int else type(value)


def _decisions(paths: Any) -> list[str]:
    """The decisions of some paths, in the order in which they are first met."""
    return list(dict.fromkeys(name for path in paths for name in path))
