"""What a report shows, as plain data: the records that the page's JavaScript reads."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import yaml

from paretopath.costs import COST_NAMES, COSTS, CostName
from paretopath.errors import InvalidValueError
from paretopath.evaluation.sensitivity import Sensitivity
from paretopath.front import (
    DynamicPoint,
    Front,
    Point,
    Retrained,
    TrialRecord,
    hypervolume_history,
    select,
)
from paretopath.paths import ExecutionPath, Value
from paretopath.quantities import SCALES, words

MOST_TRIALS = 4000
"""How many trials of a run are drawn, so that a browser stays quick; figures rest on all."""


@dataclass(frozen=True)
class UnitCost:
    """What one unit of a path costs.

    Attributes:
        unit: its name.
        costs: those that are known, for one image.
    """

    unit: str
    costs: Mapping[CostName, float]


@dataclass(frozen=True)
class ReportRun:
    """One search, as a report shows it.

    Attributes:
        name: what people call it.
        front: its front.
        trials: all its trials, in order.
        unit_costs: for any paths, by their id: the costs of their units in the order of the forward
            pass.
        versions: of the libraries, device, git hash … by name.
        sensitivity: what each decision alone does, if that was measured.
        pictures: some images with what the paths find in them, and accuracies by class, as
            ``pictures.json`` has them.
    """

    name: str
    front: Front
    trials: Sequence[TrialRecord] = ()
    unit_costs: Mapping[str, Sequence[UnitCost]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    sensitivity: Sensitivity | None = None
    pictures: Mapping[str, Any] | None = None


def report_content(runs: Sequence[ReportRun], title: str) -> dict[str, Any]:
    """The data of a report: JSON values only, NaN nowhere.

    Paths are rows of value indices into ``decisions``, -1 where a decision is absent, because
    trials may be many and decisions long-winded.

    Raises:
        InvalidValueError: no run, or runs that can't share axes: another metric, or two of one
            name.
    """
    if not runs:
        raise InvalidValueError("a report needs at least one run")
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        raise InvalidValueError(f"the runs of a report must have distinct names, but got {names}")
    metrics = {run.front.metric for run in runs}
    if len(metrics) > 1:
        raise InvalidValueError(
            f"the runs of a report must share one metric, but have {', '.join(sorted(metrics))}"
        )
    decisions = _Decisions(runs)
    return {
        "title": title,
        "metric": runs[0].front.metric,
        "costs": [name for name in COST_NAMES if _is_known(name, runs)],
        "costTitles": {cost.name: cost.title[0].upper() + cost.title[1:] for cost in COSTS},
        "costScales": {cost.name: SCALES[cost.unit] for cost in COSTS},
        "decisions": decisions.records(),
        "runs": [_run_record(run, decisions) for run in runs],
    }


class _Decisions:
    """The decisions of all paths of a report, with their values from cheapest to fullest."""

    def __init__(self, runs: Iterable[ReportRun]) -> None:
        macs: dict[str, dict[Value, list[float]]] = {}
        for run in runs:
            for path, cost in _every_path(run):
                for name, value in path.items():
                    macs.setdefault(name, {}).setdefault(value, []).append(cost)
        self.values = {name: _cheapest_first(found) for name, found in macs.items()}
        self._indices = {
            name: {value: i for i, value in enumerate(values)}
            for name, values in self.values.items()
        }

    def row(self, path: ExecutionPath) -> list[int]:
        """A path as value indices, -1 where a decision is absent."""
        return [
            indices[path[name]] if name in path else -1 for name, indices in self._indices.items()
        ]

    def records(self) -> list[dict[str, Any]]:
        """Names and values, in the order of the rows."""
        return [{"name": name, "values": values} for name, values in self.values.items()]


def _cheapest_first(found: Mapping[Value, Sequence[float]]) -> list[Value]:
    """A decision's values: numbers by size, words by the mean macs of their paths."""

    def rank(value: Value) -> tuple[float, str]:
        if isinstance(value, str):
            return float(np.mean(found[value])), value
        return float(value), ""

    return sorted(found, key=rank)


def _every_path(run: ReportRun) -> Iterable[tuple[ExecutionPath, float]]:
    """Paths with their macs; the full one first, because it names its decisions in order."""
    yield run.front.full.path, float(run.front.full.macs)
    for point in run.front.points:
        yield point.path, float(point.macs)
    for trial in run.trials:
        yield trial.path, trial.costs.get("macs", 0.0)


def _is_known(name: CostName, runs: Iterable[ReportRun]) -> bool:
    return any(run.front.full.cost(name) is not None for run in runs)


def _run_record(run: ReportRun, decisions: _Decisions) -> dict[str, Any]:
    front = run.front
    knee = select(front, "knee")[0].id if front.points else None
    units = {
        identity: [_unit_record(unit) for unit in units]
        for identity, units in run.unit_costs.items()
    }
    return {
        "name": run.name,
        "hardware": front.hardware,
        "accuracySource": front.accuracy_source,
        "cost": front.cost,
        "hypervolume": front.hypervolume,
        "knee": knee,
        "full": _point_record(front.full, decisions),
        "points": [_point_record(point, decisions) for point in front.points],
        "trials": [_trial_record(trial, decisions) for trial in _thinned(run.trials)],
        "states": {
            state: sum(trial.state == state for trial in run.trials)
            for state in dict.fromkeys(trial.state for trial in run.trials)
        },
        "history": _history(run),
        "units": units,
        "policies": [_policy_record(point) for point in front.policies],
        "sensitivity": _sensitivity_record(run.sensitivity),
        "pictures": run.pictures,
        "recipe": _yaml(front.recipe),
        "versions": dict(run.versions),
    }


def _policy_record(point: DynamicPoint) -> dict[str, Any]:
    """A path that images leave early, with what it came to on each split that was looked at."""
    splits = {"validation": point.validation, "test": point.test}
    return {
        "id": point.id,
        "pathId": point.path.id,
        "confidence": point.policy.confidence,
        "exits": list(point.policy.exits),
        "promisedLoss": point.promised_loss,
        "costs": {name: point.cost(name) for name in COST_NAMES},
        "splits": {
            name: {
                "accuracy": split.accuracy,
                "error": split.error,
                "loss": split.loss,
                "lossError": split.loss_error,
                "shares": list(split.shares),
                "right": list(split.right),
            }
            for name, split in splits.items()
            if split is not None
        },
    }


def _sensitivity_record(found: Sensitivity | None) -> dict[str, Any] | None:
    """A grid: a row for each part of the model, a column for each thing done to it.

    ``stages.0.blocks.1.mlp_ratio`` at 0.5 stands in the row ``stages.0.blocks.1`` and the column
    ``mlp_ratio 0.5``.
    """
    if found is None:
        return None
    cells = []
    for effect in found.effects:
        part, _, what = effect.decision.rpartition(".")
        cells.append(
            {
                "row": part or "model",
                "decision": effect.decision,
                "what": what,
                "value": effect.value,
                "lost": effect.lost,
                "error": effect.lost_error,
                "saved": effect.saved,
            }
        )
    return {"cost": found.cost, "accuracy": found.accuracy, "cells": cells}


def _yaml(recipe: Mapping[str, Any]) -> str:
    """A recipe as people write one: in its own order, short lists on one line."""
    text: str = yaml.safe_dump(
        dict(recipe), sort_keys=False, allow_unicode=True, default_flow_style=None, width=90
    )
    return text


def _point_record(point: Point, decisions: _Decisions) -> dict[str, Any]:
    return {
        "id": point.id,
        "number": point.number,
        "path": decisions.row(point.path),
        "accuracy": point.accuracy,
        "error": point.accuracy_error,
        "samples": point.samples,
        "test": _measured(point.test_accuracy, point.test_error),
        "retrained": {
            words(mode): {
                "validation": _measured(result.accuracy, result.error),
                "test": _measured(result.test_accuracy, result.test_error),
            }
            for mode, result in _by_accuracy(point.retrained)
        },
        "costs": {name: point.cost(name) for name in COST_NAMES},
    }


def _unit_record(unit: UnitCost) -> dict[str, Any]:
    record: dict[str, Any] = {"unit": unit.unit}
    for name, value in unit.costs.items():
        if math.isfinite(value):
            record[name] = value
    return record


def _measured(accuracy: float | None, error: float | None) -> dict[str, float | None] | None:
    return None if accuracy is None else {"accuracy": accuracy, "error": error}


def _by_accuracy(retrained: Mapping[str, Retrained]) -> list[tuple[str, Retrained]]:
    """The modes of retraining, best first: where there is room for one, the first is shown."""
    return sorted(retrained.items(), key=lambda item: -item[1].accuracy)


def _trial_record(trial: TrialRecord, decisions: _Decisions) -> dict[str, Any]:
    return {
        "id": trial.path.id,
        "number": trial.number,
        "state": trial.state,
        "path": decisions.row(trial.path),
        "accuracy": trial.accuracy,
        "error": trial.accuracy_error,
        "costs": {name: trial.costs.get(name) for name in COST_NAMES},
    }


def _thinned(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """At most :data:`MOST_TRIALS` of the trials that have an accuracy, evenly spread."""
    shown = [trial for trial in trials if trial.accuracy is not None]
    step = max(1, math.ceil(len(shown) / MOST_TRIALS))
    return shown[::step]


def _history(run: ReportRun) -> dict[str, list[float]]:
    """Hypervolume over trials where it rises, as a share of what `Front.reference` spans."""
    front = run.front
    complete = [trial for trial in run.trials if trial.state == "complete"]
    if not complete:
        return {"trials": [], "hypervolume": []}
    accuracy = [math.nan if t.accuracy is None else t.accuracy for t in complete]
    cost = [t.costs.get(front.cost, math.nan) for t in complete]
    volumes = hypervolume_history(accuracy, cost, front.reference) / front.reference[1]
    rises = np.flatnonzero(np.diff(volumes, prepend=-1.0) > 0).tolist()
    kept = sorted({*rises, len(complete) - 1})
    return {
        "trials": [complete[i].number for i in kept],
        "hypervolume": [float(volumes[i]) for i in kept],
    }
