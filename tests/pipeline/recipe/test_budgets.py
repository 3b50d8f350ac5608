"""Budgets of any cost in a recipe."""

from typing import Any

import pytest
from pydantic import ValidationError

from paretopath.costs import COST_NAMES
from paretopath.recipe.search import Search


def test_any_cost_can_be_searched_and_limited() -> None:
    for name in COST_NAMES:
        assert Search(cost=name, budgets={name: "70%"}).limits == {name: "70%"}
    both = Search(energy_budget="12.5mJ", budgets={"activation_bytes": "256kB", "macs": "300M"})
    assert both.limits == {"energy_mj": "12.5mJ", "activation_bytes": "256kB", "macs": "300M"}


@pytest.mark.parametrize(
    ("budgets", "said"),
    [
        ({"energy": "70%"}, "'energy' is not a cost; .*did you mean 'energy_mj'"),
        ({"params": "5mJ"}, "of params, a budget's unit must be one that limits a count"),
        ({"weight_bytes": "5"}, "of weight_bytes, a budget must be a share .* such as 70% or 256"),
        ({"macs": "0%"}, "of macs, a budget's percentage must be over 0"),
        ({"energy_mj": "70%"}, "energy_mj must have one budget, but has one in budgets too"),
    ],
)
def test_a_budget_that_means_nothing_is_refused(budgets: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Search(energy_budget="80%", budgets=budgets)
