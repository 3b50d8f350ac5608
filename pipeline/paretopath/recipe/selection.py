"""Selections of a front as people write them: ``knee``, ``budget=70%``, ``macs=1M``."""

from dataclasses import dataclass
from typing import Literal

from paretopath.costs import COST_NAMES, CostName, cost_named
from paretopath.errors import InvalidValueError, nearest
from paretopath.quantities import SCALES, Unit
from paretopath.recipe.budget import is_amount_of, parse_budget

FORMS = ("knee", "all", "budget=70%", "budget=12.5mJ", "activation_bytes=256kB", "count=4", "id=…")


@dataclass(frozen=True)
class Selection:
    """A selection, read.

    Attributes:
        kind: how paths are chosen.
        budget: of kind ``budget``, as it is written.
        cost: that the budget limits; told by its unit if None.
        count: of kind ``count``, at least 1.
        ids: of kind ``id``: ids or their beginnings.
    """

    kind: Literal["knee", "all", "budget", "count", "id"]
    budget: str = ""
    count: int = 0
    ids: tuple[str, ...] = ()
    cost: CostName | None = None


def parse_selection(text: str) -> Selection:
    """Reads a selection; whether a front has what it names is for the front to say.

    Raises:
        InvalidValueError: another form, or a number or a budget that can't be.
    """
    kind, equals, argument = (part.strip() for part in text.partition("="))
    if kind == "budget":
        # in the unit that it has; one that no cost has is refused as that of energy
        found = [unit for unit in SCALES if is_amount_of(argument, unit)]
        unit: Unit = found[0] if found else "mJ"
        parse_budget(argument, unit, 1.0)
        return Selection("budget", budget=argument)
    if kind in COST_NAMES and equals:
        parse_budget(argument, cost_named(kind).unit, 1.0)
        return Selection("budget", budget=argument, cost=kind)
    if kind == "count":
        if not argument.isdecimal() or int(argument) < 1:
            raise InvalidValueError(f"count=N needs a whole number from 1 up, but got {text!r}")
        return Selection("count", count=int(argument))
    ids = tuple(part.strip() for part in argument.split(","))
    if kind == "id" and all(ids):
        return Selection("id", ids=ids)
    if kind == "knee" and not equals:
        return Selection("knee")
    if kind == "all" and not equals:
        return Selection("all")
    near = nearest(f"{kind}=" if equals else kind, [*FORMS, *(f"{name}=…" for name in COST_NAMES)])
    raise InvalidValueError(f"a selection can't be {text!r}; {near}")
