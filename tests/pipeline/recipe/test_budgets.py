"""Budgets of any cost in a recipe, as people write them."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from paretopath.costs import COST_NAMES
from paretopath.errors import InvalidValueError
from paretopath.recipe import parse_budget
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


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [
        ("70%", "mJ", 140.0),
        ("100 %", "ms", 200.0),
        ("12.5mJ", "mJ", 12.5),
        ("0.2J", "mJ", 200.0),
        ("900 uJ", "mJ", 0.9),
        ("900µJ", "mJ", 0.9),
        ("900\u03bcJ", "mJ", 0.9),
        ("5e3nJ", "mJ", 0.005),
        ("8ms", "ms", 8.0),
        ("1.5s", "ms", 1500.0),
        ("750us", "ms", 0.75),
    ],
)
def test_a_budget_is_a_share_or_an_amount(text: str, unit: Any, expected: float) -> None:
    assert parse_budget(text, unit, 200.0) == pytest.approx(expected, rel=1e-12)


@given(share=st.floats(0.001, 100), full=st.floats(1e-6, 1e6))
def test_a_percentage_scales_with_the_full_path(share: float, full: float) -> None:
    assert parse_budget(f"{share:.6f}%", "mJ", full) == pytest.approx(
        full * float(f"{share:.6f}") / 100
    )


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [
        ("70", "mJ", "such as 70% or 12.5mJ, but got '70'"),
        ("", "ms", "such as 70% or 8ms, but got ''"),
        ("-5mJ", "mJ", "but got '-5mJ'"),
        ("nan%", "mJ", "but got 'nan%'"),
        ("0%", "mJ", "over 0 and at most 100, but got '0%'"),
        ("101%", "mJ", "over 0 and at most 100, but got '101%'"),
        ("0mJ", "mJ", "must be over 0 and finite, but got '0mJ'"),
        ("1e999J", "mJ", "must be over 0 and finite, but got '1e999J'"),
        ("8ms", "mJ", "limits energy, but got '8ms'; legal: %, J, mJ, uJ, µJ, nJ"),
        ("3mj", "mJ", "did you mean 'mJ'?"),
        ("3 sec", "ms", "limits latency, but got '3 sec'"),
    ],
)
def test_a_wrong_budget_says_what_it_may_be(text: str, unit: Any, expected: str) -> None:
    with pytest.raises(InvalidValueError, match=re.escape(expected)):
        parse_budget(text, unit, 200.0)
