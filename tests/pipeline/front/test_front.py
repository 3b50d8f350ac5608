"""Dominance, hypervolume, selection, and the file of a front."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretopath.costs import COST_NAMES
from paretopath.errors import InvalidValueError, RunDirectoryError
from paretopath.front import (
    DynamicPoint,
    Front,
    Point,
    Policy,
    Retrained,
    SplitResult,
    TrialRecord,
    hypervolume,
    hypervolume_history,
    pareto_front,
    policies_within,
    select,
)
from paretopath.paths import ExecutionPath


def point(cost: float, accuracy: float, number: int = 0, **changes: Any) -> Point:
    """A point of that many millijoules, whose path (so its id) follows from its number."""
    costs = {"macs": int(cost * 1e6), "params": 1000 + number}
    costs |= {"energy_mj": cost, "latency_ms": cost / 2}
    costs |= {name: changes.pop(name) for name in COST_NAMES if name in changes}
    made = Point(
        path=ExecutionPath({"exit": number, "blocks.0.mlp_ratio": 0.5, "merged": True}),
        number=number,
        accuracy=accuracy,
        accuracy_error=0.01,
        samples=360,
        costs={name: value for name, value in costs.items() if value is not None},
    )
    return replace(made, **changes)


def front_of(*points: Point, **changes: Any) -> Front:
    options: dict[str, Any] = {
        "full": point(10.0, 0.97, 99),
        "recipe": {"space": {"name": "vit"}, "seed": 0},
        "hardware": "magnet-16nm",
        "metric": "top-1",
    }
    return Front.of(points, **(options | changes))


# accuracy rises fast up to 4 mJ and slowly after: the bend is there
BENT = [(1, 0.50), (2, 0.70), (3, 0.85), (4, 0.93), (6, 0.94), (8, 0.95), (9, 0.96)]


@pytest.fixture
def bent() -> Front:
    return front_of(*(point(float(e), a, i) for i, (e, a) in enumerate(BENT)))


# ---------------------------------------------------------------- dominance


few = st.integers(0, 4).map(float)  # few values, so that ties are common


@given(st.lists(st.tuples(few, few), max_size=30))
def test_front_is_what_the_definition_says(points: list[tuple[float, float]]) -> None:
    mask = pareto_front([a for a, _ in points], [c for _, c in points])
    for i, (accuracy, cost) in enumerate(points):
        dominated = any(
            a >= accuracy and c <= cost and (a, c) != (accuracy, cost) for a, c in points
        )
        repeated = points[i] in points[:i]
        assert mask[i] == (not dominated and not repeated)


def test_front_of_nothing_is_empty() -> None:
    assert pareto_front([], []).shape == (0,)
    assert hypervolume([], [], (0.0, 1.0)) == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_front_and_hypervolume_refuse_what_is_not_finite(bad: float) -> None:
    with pytest.raises(InvalidValueError, match=r"must be finite to be compared, but cost\[1\]"):
        pareto_front([0.5, 0.6], [1.0, bad])
    with pytest.raises(InvalidValueError, match=r"accuracy\[0\]"):
        hypervolume([bad, 0.6], [1.0, 2.0], (0.0, 3.0))
    with pytest.raises(InvalidValueError, match="reference point must be a finite"):
        hypervolume([0.5], [1.0], (0.0, bad))


def test_front_refuses_shapes_that_differ() -> None:
    with pytest.raises(InvalidValueError, match=r"one shape \(n,\), but got \(2,\) and \(3,\)"):
        pareto_front([0.5, 0.6], [1, 2, 3])


@given(st.lists(st.tuples(few, few), max_size=20))
def test_hypervolume_is_the_area_counted_cell_by_cell(points: list[tuple[float, float]]) -> None:
    """On an integer grid the dominated area is a number of unit cells."""
    cells = sum(
        any(a >= row + 1 and c <= column for a, c in points)
        for row in range(5)
        for column in range(5)
    )
    found = hypervolume([a for a, _ in points], [c for _, c in points], (0.0, 5.0))
    assert found == pytest.approx(cells)


def test_hypervolume_is_mean_best_accuracy_over_budgets(bent: Front) -> None:
    budgets = (np.arange(100_000) + 0.5) / 1e4  # 0 to 10 mJ
    best = [
        max((p.accuracy for p in bent.points if p.energy_mj <= b), default=0)
        for b in budgets[::100]
    ]
    assert bent.hypervolume == pytest.approx(np.mean(best), abs=1e-3)


@given(st.lists(st.tuples(few, few), min_size=1, max_size=15))
def test_history_is_the_hypervolume_of_every_prefix(points: list[tuple[float, float]]) -> None:
    accuracy, cost = zip(*points, strict=True)
    history = hypervolume_history(accuracy, cost, (0.0, 5.0))
    expected = [hypervolume(accuracy[:n], cost[:n], (0.0, 5.0)) for n in range(1, len(points) + 1)]
    assert history == pytest.approx(expected)


def test_history_stays_level_where_a_trial_gave_nothing() -> None:
    history = hypervolume_history([0.5, math.nan, 0.9], [1.0, 2.0, math.nan], (0.0, 2.0))
    assert history.tolist() == [0.5, 0.5, 0.5]
    with pytest.raises(InvalidValueError, match=r"must be finite .* but cost\[0\] is inf"):
        hypervolume_history([0.5], [math.inf], (0.0, 2.0))


# ---------------------------------------------------------------- points and fronts


def test_front_keeps_the_non_dominated_by_rising_energy_and_first_of_equals() -> None:
    front = front_of(
        point(5, 0.9, 3), point(2, 0.7, 2), point(5, 0.9, 1), point(6, 0.8, 0), point(1, 0.1, 4)
    )
    assert [p.number for p in front.points] == [4, 2, 1]


def test_front_can_trade_another_cost() -> None:
    cheap = point(5, 0.9, 0, macs=10)
    front = front_of(cheap, point(2, 0.7, 1, macs=20), cost="macs")
    assert front.points == (cheap,)
    assert front.saved(cheap) == pytest.approx(1 - 10 / 10e6)


def test_front_refuses_a_point_without_its_cost() -> None:
    with pytest.raises(InvalidValueError, match="has no energy_mj; legal: latency_ms"):
        front_of(point(1, 0.5, energy_mj=None))


def test_front_refuses_points_that_are_no_front() -> None:
    good = front_of(point(1, 0.5, 0), point(2, 0.6, 1))
    with pytest.raises(InvalidValueError, match="must rise in energy_mj"):
        replace(good, points=good.points[::-1])
    with pytest.raises(InvalidValueError, match="none may dominate"):
        replace(good, points=(point(1, 0.5, 0), point(2, 0.4, 1)))


def test_point_refuses_nan_and_takes_none() -> None:
    with pytest.raises(InvalidValueError, match="energy_mj must be finite"):
        point(1, 0.5, energy_mj=math.nan)
    assert point(1, 0.5, dram_bytes=None).dram_bytes is None


def test_best_retraining_counts() -> None:
    plain = point(1, 0.5)
    assert (plain.retrained_accuracy, plain.retrained_error, plain.best_accuracy) == (
        None,
        None,
        0.5,
    )
    modes = {"separate": Retrained(0.8, 0.02, 0.79, 0.02), "shared": Retrained(0.7, 0.01)}
    retrained = replace(plain, retrained=modes)
    assert (retrained.retrained_accuracy, retrained.retrained_error) == (0.8, 0.02)
    assert retrained.best_accuracy == 0.8
    assert replace(plain, retrained={"shared": Retrained(0.4, 0.01)}).best_accuracy == 0.5


def test_only_complete_trials_become_points() -> None:
    costs: Any = {"energy_mj": 1.5, "macs": 7.0, "params": 8.0}
    trial = TrialRecord(3, "complete", ExecutionPath({"exit": 2}), 0.9, 0.01, 360, costs)
    made = Point.of_trial(trial)
    assert (made.number, made.path, made.energy_mj, made.latency_ms) == (3, trial.path, 1.5, None)
    assert isinstance(made.macs, int)
    with pytest.raises(InvalidValueError, match=r"trial 3 is stopped with accuracy 0\.9"):
        Point.of_trial(replace(trial, state="stopped"))
    with pytest.raises(InvalidValueError, match="trial 3 must have macs"):
        Point.of_trial(replace(trial, costs={"energy_mj": 1.5}))


def test_trial_refuses_unknown_and_infinite_costs() -> None:
    trial = TrialRecord(3, "failed", ExecutionPath({}), None, None, 0, {}, failure="out of memory")
    with pytest.raises(
        InvalidValueError, match=r"'energy' is not a cost; .*did you mean 'energy_mj'"
    ):
        replace(trial, costs={"energy": 1.0})
    with pytest.raises(InvalidValueError, match="energy_mj of trial 3 must be finite, not nan"):
        replace(trial, costs={"energy_mj": math.nan})


def test_ids_find_points_by_their_beginning(bent: Front) -> None:
    wanted = bent.points[2]
    assert bent[wanted.id] is wanted
    assert bent[wanted.id[:7]] is wanted
    assert bent[bent.full.id] is bent.full
    with pytest.raises(InvalidValueError, match="no path has id 'zz'; legal: "):
        bent["zz"]


def test_an_ambiguous_id_is_refused() -> None:
    many = front_of(*(point(float(i + 1), 0.01 * (i + 1), i) for i in range(40)))
    firsts = [p.id[0] for p in many.points]
    shared = next(c for c in firsts if firsts.count(c) > 1)
    with pytest.raises(InvalidValueError, match="paths have an id that starts"):
        many[shared]


def test_updated_replaces_by_path_and_refuses_strangers(bent: Front) -> None:
    tested = replace(bent.points[1], test_accuracy=0.69)
    changed = bent.updated([tested, replace(bent.full, test_accuracy=0.96)])
    assert changed.points[1].test_accuracy == 0.69
    assert changed.full.test_accuracy == 0.96
    assert changed.points[0] == bent.points[0]
    with pytest.raises(InvalidValueError, match="no path of the front has id"):
        bent.updated([point(1, 0.5, 1234)])


# ---------------------------------------------------------------- the file


def test_front_survives_its_file(tmp_path: Path, bent: Front) -> None:
    modes = {"separate": Retrained(0.8, 0.02, 0.79, 0.02), "shared": Retrained(0.82, 0.01)}
    full = bent.updated([replace(bent.points[0], retrained=modes, test_accuracy=0.4)])
    full.save(tmp_path / "front.json")
    loaded = Front.load(tmp_path / "front.json")
    assert loaded == full
    assert loaded.recipe == full.recipe
    assert loaded.points[0].retrained == modes
    assert isinstance(loaded.points[0].path, ExecutionPath)
    values = loaded.points[1].path
    assert (values["merged"], values["exit"]) == (True, 1)
    assert isinstance(values["merged"], bool)


def test_file_is_as_documented(tmp_path: Path, bent: Front) -> None:
    bent.save(tmp_path / "front.json")
    content = json.loads((tmp_path / "front.json").read_text())
    assert content["schema"] == 3
    assert content["recipe"] == {"space": {"name": "vit"}, "seed": 0}
    assert content["hardware"] == "magnet-16nm"
    energies = [p["energy_mj"] for p in content["points"]]
    assert energies == sorted(energies)
    assert len(energies) == len(BENT)
    first = content["points"][0]
    assert first["id"] == bent.points[0].id
    assert first["path"] == {"exit": 0, "blocks.0.mlp_ratio": 0.5, "merged": True}
    assert first["retrained_accuracy"] is None
    wanted = "accuracy accuracy_error samples energy_mj latency_ms macs params test_accuracy"
    assert set(wanted.split()) <= set(first)


def test_a_file_older_than_a_cost_opens_without_it(tmp_path: Path, bent: Front) -> None:
    bent.save(tmp_path / "front.json")
    content = json.loads((tmp_path / "front.json").read_text())
    for record in (content["full"], *content["points"]):
        assert record.pop("activation_bytes") is None
        del record["weight_bytes"]
    del content["sha256"]  # no older than the costs
    (tmp_path / "front.json").write_text(json.dumps(content))
    found = Front.load(tmp_path / "front.json")
    assert found == bent
    assert found.full.activation_bytes is None and found.full.cost("weight_bytes") is None
    found.save_csv(tmp_path / "front.csv", found.points)
    header, first, *_ = (tmp_path / "front.csv").read_text().splitlines()
    assert dict(zip(header.split(","), first.split(","), strict=True))["activation_bytes"] == ""


def dynamic_point(path: ExecutionPath, **changes: Any) -> DynamicPoint:
    """A path that four in five images leave early."""
    came_to = SplitResult(0.8, 0.01, 0.002, 0.004, 500, (0.8, 0.2), (0.9, None), 1.4, 0.01)
    policy = Policy("margin", ("exits.1", "exits.3"), (0.7,), (1.25,))
    costs = {"energy_mj": 1.4, "macs": 50, "params": 60}
    return replace(DynamicPoint(path, "searched", policy, costs, 0.006, came_to), **changes)


def test_policies_are_kept_in_the_file(tmp_path: Path, bent: Front) -> None:
    cheap = dynamic_point(bent.points[0].path, test=dynamic_point(bent.full.path).validation)
    dear = dynamic_point(bent.full.path, costs={"energy_mj": 2.0, "macs": 70})
    front = bent.with_policies([dear, cheap])
    assert front.policies == (cheap, dear)
    front.save(tmp_path / "front.json")
    loaded = Front.load(tmp_path / "front.json")
    assert loaded == front
    assert isinstance(loaded.policies[0].path, ExecutionPath)
    assert loaded.policies[0].id == cheap.id != dear.id


def test_a_file_of_before_policies_opens_without_any(tmp_path: Path, bent: Front) -> None:
    bent.save(tmp_path / "front.json")
    content = json.loads((tmp_path / "front.json").read_text())
    assert content.pop("policies") == content.pop("early_only") == []
    content["schema"] = 1
    del content["sha256"]
    (tmp_path / "front.json").write_text(json.dumps(content))
    assert Front.load(tmp_path / "front.json") == bent


def test_paths_that_a_policy_alone_makes_worth_it_are_named_but_no_points(
    tmp_path: Path, bent: Front
) -> None:
    beaten = replace(bent.points[0], path=ExecutionPath({"exit": 2, "dear": True}))
    front = bent.with_early_only([beaten, bent.points[1], bent.full])
    assert front.early_only == (beaten,) and front.points == bent.points
    front.save(tmp_path / "front.json")
    assert Front.load(tmp_path / "front.json") == front
    assert select(front, f"id={beaten.id}") == [beaten]
    assert beaten not in select(front, "all")
    better = replace(beaten, retrained={"shared": Retrained(0.9, 0.01)})
    assert front.updated([better]).early_only == (better,)


def test_a_policy_is_chosen_by_what_may_be_lost_or_by_energy(bent: Front) -> None:
    losses = {1.0: 0.05, 1.4: 0.006, 2.0: -0.001}
    front = bent.with_policies(
        dynamic_point(bent.full.path, costs={"energy_mj": e, "macs": 1}, promised_loss=loss)
        for e, loss in losses.items()
    )

    def energy(**bound: Any) -> float | None:
        (point,) = policies_within(front, **bound)
        return point.cost("energy_mj")

    assert [energy(max_loss=points) for points in (0, 0.6, 0.7, 100)] == [2.0, 1.4, 1.4, 1.0]
    assert [energy(energy_budget=f"{mj}mJ") for mj in (1, 1.5, 9)] == [1.0, 1.4, 2.0]
    assert len(policies_within(front)) == 3
    with pytest.raises(InvalidValueError, match="budget of 900 µJ of energy; the cheapest takes 1"):
        energy(energy_budget="0.9mJ")
    with pytest.raises(InvalidValueError, match=r"must lie in \[0, 100\] points, but got -1"):
        energy(max_loss=-1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"thresholds": (0.5, 0.6)}, "thresholds must be 1 finite numbers"),
        ({"thresholds": (math.nan,)}, "thresholds must be 1 finite numbers"),
        ({"temperatures": (0.0,)}, "temperatures must be over 0"),
        ({"exits": ("exits.1", "exits.1")}, "exits must be distinct"),
    ],
)
def test_policies_that_cannot_be_are_refused(changes: Any, message: str) -> None:
    policy = Policy("margin", ("exits.1", "exits.3"), (0.7,), (1.25,))
    with pytest.raises(InvalidValueError, match=message):
        replace(policy, **changes)


def damage(content: Any, place: str, value: Any) -> None:
    """Sets content["points"][0]["macs"] for ``points.0.macs``; ``...`` deletes it."""
    *parents, last = [int(k) if k.isdecimal() else k for k in place.split(".")]
    for key in parents:
        content = content[key]
    if value is ...:
        del content[last]
    else:
        content[last] = value


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("schema", 4, "must have schema 1 to 3, but has 4"),
        ("schema", ..., "must have schema 1 to 3, but has None"),
        ("hardware", ..., "hardware is missing"),
        ("points.2.macs", ..., r"points\[2\].macs is missing"),
        ("points.0.macs", "many", r"points\[0\].macs: .* but got 'many'"),
        ("points.0.accuracy", None, r"points\[0\].accuracy: .* but got None"),
        ("points.1.energy_mj", math.nan, r"points\[1\]: energy_mj must be finite"),
        ("points.1.energy_mj", 0.5, "must rise in energy_mj"),
        ("points.0.path", [1], r"points\[0\].path: a path must map decisions"),
        ("points.0.path.exit", 7, r"points\[0\].id must be '\w+', which follows"),
        ("points.0.retrained_accuracy", 0.9, r"points\[0\].retrained_accuracy must be None"),
        ("full", ..., "full is missing"),
        ("full.samples", 1.5, "full.samples: .* but got 1.5"),
        ("full.id", ..., "full.id is missing"),
        ("cost", "energy", "'energy' is not a cost; .*did you mean 'energy_mj'"),
        ("points", {}, "points: .* but got {}"),
    ],
)
def test_a_wrong_file_is_one_clear_sentence(
    tmp_path: Path, bent: Front, place: str, value: Any, message: str
) -> None:
    file = tmp_path / "front.json"
    bent.save(file)
    content = json.loads(file.read_text())
    damage(content, place, value)
    file.write_text(json.dumps(content))
    with pytest.raises(RunDirectoryError, match=message) as caught:
        Front.load(file)
    assert "front.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_absent_or_cut_short_says_so(tmp_path: Path, bent: Front) -> None:
    with pytest.raises(RunDirectoryError, match=r"can't read the front .*No such file"):
        Front.load(tmp_path / "front.json")
    bent.save(tmp_path / "front.json")
    text = (tmp_path / "front.json").read_text()
    (tmp_path / "front.json").write_text(text[: len(text) // 2])
    with pytest.raises(RunDirectoryError, match="is not valid JSON"):
        Front.load(tmp_path / "front.json")


# ---------------------------------------------------------------- selection


def numbers(points: list[Point]) -> list[int]:
    return [p.number for p in points]


def test_knee_is_the_bend(bent: Front) -> None:
    assert numbers(select(bent, "knee")) == [3]


def test_knee_does_not_depend_on_units(bent: Front) -> None:
    scaled = front_of(
        *(
            replace(p, costs={**p.costs, "energy_mj": p.energy_mj * 1e4}, accuracy=p.accuracy / 3)
            for p in bent.points
        )
    )
    assert numbers(select(scaled, "knee")) == [3]


def test_knee_of_one_or_two_points_is_the_cheapest() -> None:
    assert numbers(select(front_of(point(1, 0.5, 7)), "knee")) == [7]
    assert numbers(select(front_of(point(1, 0.5, 7), point(2, 0.6, 8)), "knee")) == [7]


@pytest.mark.parametrize(
    ("spec", "number"),
    [
        ("budget=70%", 4),
        ("budget=60%", 4),
        ("budget=59.9%", 3),
        ("budget=100%", 6),
        ("budget=3.5mJ", 2),
        ("budget=3500uJ", 2),
        ("budget=0.0035J", 2),
        ("budget = 3 mJ", 2),
        ("budget=1.5ms", 2),
        ("energy_mj=60%", 4),
        ("params=1002", 2),
        ("macs=3.5M", 2),
    ],
)
def test_budget_gives_the_most_accurate_that_fits(bent: Front, spec: str, number: int) -> None:
    assert numbers(select(bent, spec)) == [number]


def test_budget_on_another_cost_still_takes_the_most_accurate() -> None:
    front = front_of(point(1, 0.5, 0, latency_ms=1.0), point(2, 0.6, 1, latency_ms=0.9))
    assert numbers(select(front, "budget=1ms")) == [1]


def test_a_budget_of_a_cost_by_name_tells_costs_of_one_unit_apart() -> None:
    costs = [{"weight_bytes": 4000, "activation_bytes": 9000}]
    costs += [{"weight_bytes": 6000, "activation_bytes": 5000}]
    points = [point(i + 1, 0.5 + i / 10, i, **costs[i]) for i in range(2)]
    front = front_of(*points, full=points[1])
    assert numbers(select(front, "weight_bytes=5kB")) == [0]
    assert numbers(select(front, "activation_bytes=5kB")) == [1]


def test_retraining_does_not_change_what_a_budget_selects(bent: Front) -> None:
    better = replace(bent.points[0], retrained={"shared": Retrained(0.99, 0.01)})
    assert numbers(select(bent.updated([better]), "budget=70%")) == [4]


@pytest.mark.parametrize("count", range(1, 10))
def test_count_spreads_and_holds_both_ends(bent: Front, count: int) -> None:
    chosen = numbers(select(bent, f"count={count}"))
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(count, len(BENT))
    if count > 1:
        assert (chosen[0], chosen[-1]) == (0, 6)
    assert chosen == numbers(select(bent, f"count={count}"))


def test_count_is_even_along_the_front_not_by_index() -> None:
    crowd = [point(1 + 0.01 * i, 0.1 + 0.001 * i, i) for i in range(50)]
    front = front_of(*crowd, point(5, 0.5, 50), point(9, 0.9, 51))
    assert numbers(select(front, "count=3")) == [0, 50, 51]


def test_all_and_ids(bent: Front) -> None:
    assert select(bent, "all") == list(bent.points)
    a, b = bent.points[5], bent.full
    assert select(bent, f"id={a.id},{b.id[:8]}") == [a, b]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("kne", "a selection can't be 'kne'; legal: .*did you mean 'knee'"),
        ("knee=3", "can't be 'knee=3'.*did you mean 'knee'"),
        ("", "a selection can't be ''"),
        ("budget", "a budget must be .* such as 70% or 12.5mJ, but got ''"),
        ("budget=70", "an amount with its unit, such as 70% or 12.5mJ, but got '70'"),
        ("budget=7mj", "legal: %, J, mJ"),
        ("budget=-7mJ", "an amount with its unit"),
        ("budget=nan%", "an amount with its unit"),
        ("budget=0%", "must be over 0"),
        ("budget=1e999mJ", "must be over 0 and finite"),
        (
            "budget=0.5µJ",
            r"no path of the front fits a budget of 500 nJ of energy; the cheapest, \w+, takes "
            "1.00 mJ",
        ),
        ("budget=5kB", "could limit any of dram_bytes, .*name one, such as activation_bytes=5kB"),
        ("weight_bytes=5ms", "unit must be one that limits memory, but got '5ms'"),
        ("activaton_bytes=5kB", "did you mean 'activation_bytes=…'"),
        ("params", "can't be 'params'; .*did you mean 'params=…'"),
        ("count=0", "needs a whole number from 1 up, but got 'count=0'"),
        ("count=2.5", "needs a whole number"),
        ("count=all", "needs a whole number"),
        ("id=", "a selection can't be 'id='"),
        ("id=nope", "no path has id 'nope'"),
    ],
)
def test_wrong_selections_are_one_sentence(bent: Front, spec: str, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        select(bent, spec)


def test_an_empty_front_selects_nothing() -> None:
    with pytest.raises(InvalidValueError, match="front has no points"):
        select(front_of(), "knee")
