"""Which points a selection takes."""

from dataclasses import replace

import pytest

from paretopath.errors import InvalidValueError
from paretopath.front import Front, Point, Retrained, select
from tests.pipeline.front.example_fronts import BENT, front_of, point


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
