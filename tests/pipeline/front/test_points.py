"""What points, trials and fronts may be, and how they are found."""

import math
from dataclasses import replace
from typing import Any

import pytest

from paretopath.errors import InvalidValueError
from paretopath.front import Front, Point, Retrained, TrialRecord
from paretopath.paths import ExecutionPath
from tests.pipeline.front.example_fronts import front_of, point


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
