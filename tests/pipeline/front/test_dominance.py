"""Dominance and hypervolume."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paretopath.errors import InvalidValueError
from paretopath.front import Front, hypervolume, hypervolume_history, pareto_front

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
