"""Budgets as people write them: a share of the full path, or an amount with its unit."""

import math
import re
from collections.abc import Mapping
from typing import Literal

from paretopath.errors import InvalidValueError, nearest

BudgetUnit = Literal["mJ", "ms"]

_UNITS: Mapping[BudgetUnit, Mapping[str, float]] = {
    "mJ": {"J": 1e3, "mJ": 1.0, "uJ": 1e-3, "µJ": 1e-3, "nJ": 1e-6},
    "ms": {"s": 1e3, "ms": 1.0, "us": 1e-3, "µs": 1e-3},
}
_EXAMPLES: Mapping[BudgetUnit, str] = {"mJ": "70% or 12.5mJ", "ms": "70% or 8ms"}
_AMOUNT = re.compile(
    r"(?P<number>\d+(\.\d*)?|\.\d+)(?P<exponent>[eE][+-]?\d+)?\s*(?P<unit>[^\s\d]+)"
)
_GREEK_MU = "\N{GREEK SMALL LETTER MU}"


def parse_budget(text: str, unit: BudgetUnit, full: float) -> float:
    """The amount that a budget allows.

    Args:
        text: a percentage of the full path's cost, over 0 and at most 100, such as ``70%``; or an
            amount over 0 with its unit: ``12.5mJ``, ``900 uJ``, ``0.2J`` for energy, ``8ms``,
            ``750us``, ``1s`` for time.
        unit: what the budget limits: energy (``mJ``) or latency (``ms``).
        full: the full path's cost in that unit, finite and over 0.

    Returns:
        The budget in ``unit``.

    Raises:
        InvalidValueError: ``text`` is neither, its unit is unknown, or its number is out of range.
    """
    example = _EXAMPLES[unit]
    match = _AMOUNT.fullmatch(str(text).strip().replace(_GREEK_MU, "µ"))
    if match is None:
        raise InvalidValueError(
            f"a budget must be a share of the full path or an amount with its unit, "
            f"such as {example}, but got {str(text)!r}"
        )
    number = float(match["number"] + (match["exponent"] or ""))
    if match["unit"] == "%":
        if not 0 < number <= 100:
            raise InvalidValueError(
                f"a budget's percentage must be over 0 and at most 100, but got {text!r}"
            )
        return full * number / 100
    factors = _UNITS[unit]
    if match["unit"] not in factors:
        raise InvalidValueError(
            f"a budget's unit must be one that limits {'energy' if unit == 'mJ' else 'latency'}, "
            f"but got {text!r}; {nearest(match['unit'], ['%', *factors])}"
        )
    amount = number * factors[match["unit"]]
    if not (amount > 0 and math.isfinite(amount)):
        raise InvalidValueError(f"a budget must be over 0 and finite, but got {text!r}")
    return amount
