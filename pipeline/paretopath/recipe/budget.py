"""Budgets as people write them: a share of the full path, or an amount with its unit."""

import math
import re
from collections.abc import Mapping

from paretopath.errors import InvalidValueError, nearest
from paretopath.quantities import Unit

_UNITS: Mapping[Unit, Mapping[str, float]] = {
    "mJ": {"J": 1e3, "mJ": 1.0, "uJ": 1e-3, "µJ": 1e-3, "nJ": 1e-6},
    "ms": {"s": 1e3, "ms": 1.0, "us": 1e-3, "µs": 1e-3},
    "B": {"GB": 1e9, "MB": 1e6, "kB": 1e3, "B": 1.0, "MiB": 2**20, "KiB": 2**10},
    "": {"G": 1e9, "M": 1e6, "k": 1e3, "": 1.0},
}
_EXAMPLES: Mapping[Unit, str] = {
    "mJ": "70% or 12.5mJ",
    "ms": "70% or 8ms",
    "B": "70% or 256kB",
    "": "70% or 300M",
}
_LIMITED: Mapping[Unit, str] = {"mJ": "energy", "ms": "latency", "B": "memory", "": "a count"}
_AMOUNT = re.compile(
    r"(?P<number>\d+(\.\d*)?|\.\d+)(?P<exponent>[eE][+-]?\d+)?\s*(?P<unit>[^\s\d]*)"
)
_GREEK_MU = "\N{GREEK SMALL LETTER MU}"


def is_amount_of(text: str, unit: Unit) -> bool:
    """Whether a budget is an amount in one of the units that people use for ``unit``."""
    match = _match(text)
    return match is not None and match["unit"] != "" and match["unit"] in _UNITS[unit]


def parse_budget(text: str, unit: Unit, full: float) -> float:
    """The amount that a budget allows.

    Args:
        text: a percentage of the full path's cost, over 0 and at most 100, such as ``70%``; or an
            amount over 0 with its unit: ``12.5mJ``, ``900 uJ``, ``0.2J`` for energy, ``8ms``,
            ``750us``, ``1s`` for time, ``256kB`` for memory, ``300M`` for counts.
        unit: what the budget limits: energy (``mJ``), latency (``ms``), memory (``B``) or a count.
        full: the full path's cost in that unit, finite and over 0.

    Returns:
        The budget in ``unit``.

    Raises:
        InvalidValueError: ``text`` is neither, its unit is unknown, or its number is out of range.
    """
    match, factors = _match(text), _UNITS[unit]
    if match is None or (match["unit"] == "" and "" not in factors):
        raise InvalidValueError(
            f"a budget must be a share of the full path or an amount with its unit, "
            f"such as {_EXAMPLES[unit]}, but got {str(text)!r}"
        )
    number = float(match["number"] + (match["exponent"] or ""))
    if match["unit"] == "%":
        if not 0 < number <= 100:
            raise InvalidValueError(
                f"a budget's percentage must be over 0 and at most 100, but got {text!r}"
            )
        return full * number / 100
    if match["unit"] not in factors:
        raise InvalidValueError(
            f"a budget's unit must be one that limits {_LIMITED[unit]}, "
            f"but got {text!r}; {nearest(match['unit'], ['%', *factors])}"
        )
    amount = number * factors[match["unit"]]
    if not (amount > 0 and math.isfinite(amount)):
        raise InvalidValueError(f"a budget must be over 0 and finite, but got {text!r}")
    return amount


def _match(text: str) -> re.Match[str] | None:
    return _AMOUNT.fullmatch(str(text).strip().replace(_GREEK_MU, "µ"))
