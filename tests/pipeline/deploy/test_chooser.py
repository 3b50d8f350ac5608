"""Budgets over any cost pick the most accurate path, whatever the front knows."""

from typing import Any

import pytest

from paretopath.deploy.chooser import Chooser, Option, worth_having
from paretopath.errors import InvalidValueError
from paretopath.front import Point
from paretopath.paths import ExecutionPath

COSTS = {"macs": 2_000_000, "params": 1000}


def option(number: int, accuracy: float, weights: str = "searched", **costs: float) -> Option:
    point = Point(
        path=ExecutionPath({"number": number}),
        number=number,
        accuracy=accuracy,
        accuracy_error=0.01,
        samples=100,
        costs={**COSTS, **costs},
    )
    return Option(point, weights, accuracy)


@pytest.mark.parametrize("cost", ["energy_mj", "latency_ms", "macs", "params"])
def test_any_cost_that_the_front_knows_can_be_the_budget(cost: str) -> None:
    options = [option(i, 0.5 + 0.1 * i, **{cost: 10.0**i}) for i in range(3)]
    chooser = Chooser(options[::-1])
    assert cost in chooser.costs
    for i, bound in enumerate([1.0, 10.0, 100.0]):
        assert chooser({cost: bound}).accuracy == options[i].accuracy
    assert chooser({}).accuracy == 0.7
    assert chooser({cost: None}).accuracy == 0.7


def test_several_budgets_hold_at_once() -> None:
    chooser = Chooser(
        [
            option(0, 0.5, energy_mj=1, latency_ms=1),
            option(1, 0.7, energy_mj=2, latency_ms=9),
            option(2, 0.6, energy_mj=9, latency_ms=2),
        ]
    )
    assert chooser({"energy_mj": 3, "latency_ms": 3}).accuracy == 0.5
    assert chooser({"energy_mj": 3, "latency_ms": 9}).accuracy == 0.7


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (
            {"latency_ms": 1e-6},
            r"no path keeps to a budget of 1.00 ns of latency; the least that any needs is 3.00 µs",
        ),
        (
            {"latency_ms": 1e-6, "macs": 5000},
            r"of 1.00 ns of latency and 5.00 k MACs; "
            r"the least of each is 3.00 µs of latency and 2.00 M MACs",
        ),
        (
            {"energy_mj": 1},
            r"about a cost of this front, but got 'energy_mj'; legal: latency_ms, macs, params",
        ),
        ({"latency": 1}, r"got 'latency'; legal: .*; did you mean 'latency_ms'\?"),
        ({"latency_ms": "8ms"}, r"a number over 0, but got latency_ms='8ms'"),
        ({"latency_ms": float("nan")}, "a number over 0, but got latency_ms=nan"),
        ({"macs": 0}, "a number over 0, but got macs=0"),
        ({"macs": True}, "a number over 0, but got macs=True"),
    ],
)
def test_a_budget_that_can_not_be_met_or_meant_is_one_sentence(
    budget: dict[str, Any], message: str
) -> None:
    chooser = Chooser([option(0, 0.5, latency_ms=0.003), option(1, 0.6, latency_ms=4.0)])
    with pytest.raises(InvalidValueError, match=message):
        chooser(budget)


def test_of_two_weights_for_a_path_only_the_better_is_worth_having() -> None:
    found = worth_having(
        [
            option(0, 0.8, "shared", energy_mj=1),
            option(1, 0.8, "shared", energy_mj=2),  # dearer and no better
            option(0, 0.8, "searched", energy_mj=1),  # the same: the first stays
            option(1, 0.9, "searched", energy_mj=2),
        ]
    )
    assert [(o.point.number, o.weights) for o in found] == [(0, "shared"), (1, "searched")]


def test_a_dynamic_model_needs_a_path() -> None:
    with pytest.raises(InvalidValueError, match="at least one path"):
        Chooser([])
