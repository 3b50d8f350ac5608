"""A search of a small transformer as reports and tracking see it: real spaces, fronts and records.

The accuracies come from a formula, so that tests need no training; nothing else is made up.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from paretopath.evaluation.predictor import Predictions
from paretopath.evaluation.sensitivity import Sensitivity
from paretopath.front import (
    DynamicPoint,
    Front,
    Point,
    Policy,
    Retrained,
    SplitResult,
    TrialRecord,
    select,
)
from paretopath.paths import Condition, Decision, ExecutionPath, SearchSpace
from paretopath.search.single_changes import measure_sensitivity
from paretopath.showing.report import ReportRun, UnitCost
from paretopath.tasks.task import Score

EXITS = (1, 2, 4)
IMAGES = 360


def example_space() -> SearchSpace:
    """Exit, and for each of four blocks whether it runs, its heads and its MLP's width."""
    decisions = [Decision("exit", EXITS)]
    for i in range(EXITS[-1]):
        beyond = tuple(e for e in EXITS if e > i)
        reached = Condition("exit", beyond) if len(beyond) < len(EXITS) else None
        runs = Condition(f"blocks.{i}.run", (True,))
        decisions += [
            Decision(f"blocks.{i}.run", (False, True), reached),
            Decision(f"blocks.{i}.heads", (1, 2, 4), runs),
            Decision(f"blocks.{i}.mlp_ratio", (0.25, 0.5, 1.0), runs),
        ]
    return SearchSpace(decisions)


def example_units(path: ExecutionPath, *, scale: float = 1.0) -> list[UnitCost]:
    """Costs of the units that a path runs."""
    units = [UnitCost("stem", {"energy_mj": 2e-4 * scale, "latency_ms": 6e-4, "macs": 33e3})]
    for i in range(int(path["exit"])):
        if path[f"blocks.{i}.run"]:
            width = float(path[f"blocks.{i}.heads"]) / 4 + 2 * float(path[f"blocks.{i}.mlp_ratio"])
            costs: dict[Any, float] = {"energy_mj": (1 + 2 * width) * 2e-4 * scale}
            costs |= {"latency_ms": 2e-3 * width, "macs": 2e5 * width}
            units.append(UnitCost(f"blocks.{i}", costs))
    head = {"energy_mj": 5e-5 * scale, "latency_ms": 4e-4, "macs": 2e3}
    return [*units, UnitCost(f"exits.{path['exit']}", head)]  # type: ignore[arg-type]


def example_run(
    *,
    name: str = "digits",
    trials: int = 60,
    seed: int = 0,
    scale: float = 1.0,
    hardware: str = "magnet-16nm",
    retrained: bool = True,
) -> ReportRun:
    """A finished search: mostly complete trials, one that was stopped and one that failed."""
    space, rng = example_space(), np.random.default_rng(seed)
    paths = list(dict.fromkeys([space.full, space.smallest, *_samples(space, rng, 4 * trials)]))
    records = [_trial(i, path, rng, scale) for i, path in enumerate(paths[:trials])]
    records[5] = replace(records[5], state="stopped", samples=90)
    records[7] = replace(
        records[7], state="failed", accuracy=None, accuracy_error=None, samples=0, failure="lost"
    )
    points = [Point.of_trial(trial) for trial in records if trial.state == "complete"]
    front = Front.of(
        points,
        full=points[0],
        recipe={"name": name, "space": {"name": "vit"}, "search": {"trials": trials, "seed": seed}},
        hardware=hardware,
        metric="top-1",
    )
    if retrained:
        front = front.updated(_retrain(front))
    everyone = (*front.points, front.full)
    units = {point.id: example_units(point.path, scale=scale) for point in everyone}
    versions = {"torch": "2.11.0", "device": "CPU"}
    return ReportRun(name, front, records, units, versions, example_sensitivity())


def example_sensitivity() -> Sensitivity:
    """What each decision alone does, by the same formula as the trials' accuracies."""

    def cost_of(paths: Sequence[ExecutionPath], name: Any = "energy_mj") -> np.ndarray:
        return np.array([sum(unit.costs[name] for unit in example_units(p)) for p in paths])

    class Formula:
        def __call__(self, paths: Sequence[ExecutionPath]) -> list[Score]:
            macs = cost_of(paths, "macs")
            return [Score(0.97 - 0.6 * math.exp(-m / 4e5), 0.004, IMAGES) for m in macs]

        def begin(self, paths: Sequence[ExecutionPath]) -> Predictions:
            return Predictions(tuple(self(paths)))

    space = example_space()
    return measure_sensitivity(space, cost_of, Formula(), metric="top-1", cost="energy_mj")


def _samples(space: SearchSpace, rng: np.random.Generator, count: int) -> list[ExecutionPath]:
    return [space.sample(rng) for _ in range(count)]


def _trial(number: int, path: ExecutionPath, rng: np.random.Generator, scale: float) -> TrialRecord:
    units = example_units(path, scale=scale)
    costs: dict[Any, float] = {
        cost: sum(unit.costs[cost] for unit in units)  # type: ignore[index]
        for cost in ("energy_mj", "latency_ms", "macs")
    }
    costs |= {"params": costs["macs"] // 16, "dram_bytes": costs["macs"] / 8}
    accuracy = 0.97 - 0.6 * math.exp(-costs["macs"] / 4e5) - 0.03 * float(rng.random())
    accuracy = round(accuracy * IMAGES) / IMAGES
    error = math.sqrt(accuracy * (1 - accuracy) / IMAGES)
    return TrialRecord(number, "complete", path, accuracy, error, IMAGES, costs)


def _retrain(front: Front) -> list[Point]:
    """Test accuracies for all, and four retrained paths, one of them in both modes."""
    tested = [
        replace(p, test_accuracy=p.accuracy - 0.01, test_error=p.accuracy_error)
        for p in (*front.points, front.full)
    ]
    chosen = {point.id: i for i, point in enumerate(select(front, "count=4"))}
    changed = []
    for point in tested:
        modes = {}
        if point.id in chosen:
            better = (point.accuracy + 0.98) / 2
            modes["shared"] = Retrained(better, 0.01, better - 0.005, 0.01)
        if chosen.get(point.id) == 1:
            modes["separate"] = Retrained(better + 0.005, 0.01, better, 0.01)
        changed.append(replace(point, retrained=modes))
    return changed


def with_policies(run: ReportRun) -> ReportRun:
    """The run with two policies of its full path; nobody leaves by the dearer one."""
    front = run.front
    early = SplitResult(
        0.95, 0.01, 0.004, 0.003, IMAGES, (0.7, 0.3, 0.0), (0.99, 0.9, None), 1.0, 0
    )
    whole = SplitResult(0.954, 0.01, 0.0, 0.003, IMAGES, (1.0,), (0.954,), 2.0, 0)
    names = ("exits.1", "exits.2", "exits.4")
    full = front.cost_of(front.full)

    def point(policy: Policy, share: float, promised: float, came_to: SplitResult) -> DynamicPoint:
        costs = {**front.full.costs, front.cost: share * full}
        return DynamicPoint(
            front.full.path, "searched", policy, costs, promised, came_to, replace(came_to)
        )

    policies = [
        point(Policy("margin", names, (0.5, 0.4), (1.2, 0.9)), 0.4, 0.007, early),
        point(Policy("maximum", names[-1:], (), ()), 1.0, 0.0, whole),
    ]
    return replace(run, front=front.with_policies(policies))
