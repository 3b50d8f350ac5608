"""The costs of a path: one tuple, from which tables, fronts, recipes, budgets and displays follow.

A new cost is an entry of :data:`COSTS`, and no other file need change.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from paretopath.errors import InvalidValueError, nearest
from paretopath.quantities import Unit, quantity

CostName = str
"""A name of :data:`COSTS`."""


@dataclass(frozen=True)
class Cost:
    """Something that a path takes, for one image.

    Attributes:
        name: of the column, its unit within where it has one.
        title: what people call it.
        unit: what its values are in.
        combines: how the units' costs make a path's: their sum, or the largest of them.
        of_unit: the cost of a traced unit (:class:`~paretopath.tracing.UnitTrace`); None where it
            depends on the hardware: then it is the cost model's array of that name.
        of_kind: the part of a traced unit's cost that operators of one kind have; None where it
            can't be told apart, or where ``of_unit`` is None: then the cost model's prices of
            single operators say it.
        is_held: whether it is taken whatever part of a path an image runs, like parameters; else it
            is by what runs.
        whole: whether its values are whole numbers.
        in_brief: whether it is shown where there is room for a few only, as on a terminal.
        required: whether every point of a front has it; others may be unknown.
        colour: of its bars.
    """

    name: CostName
    title: str
    unit: Unit
    combines: Literal["sum", "max"] = "sum"
    of_unit: Callable[[Any], float] | None = None
    of_kind: Callable[[Any, Any], float] | None = None
    is_held: bool = False
    whole: bool = False
    in_brief: bool = False
    required: bool = False
    colour: str = "#8C8C8C"

    @property
    def is_sum(self) -> bool:
        """Whether parts add up, so that each has a share of the whole."""
        return self.combines == "sum"

    @property
    def axis(self) -> str:
        """The title of an axis in the stored unit."""
        unit = {"B": "bytes"}.get(self.unit, self.unit)
        return f"{self.title} ({unit} per image)" if unit else self.title

    def text(self, value: float | None) -> str:
        """A value of this cost as people read it."""
        return quantity(value, self.unit)

    def phrase(self, text: str) -> str:
        """An amount with what it is of: ``3.00 kB of activation memory``, ``70 parameters``."""
        return f"{text} of {self.title}" if self.unit else f"{text} {self.title}"

    def combined(self, values: Iterable[float | None]) -> float | None:
        """The cost of parts together; None if one is unknown. Nothing costs 0."""
        known: list[float] = []
        for value in values:
            if value is None or not math.isfinite(value):
                return None
            known.append(value)
        return sum(known) if self.combines == "sum" else max(known, default=0)


# Colours are of Okabe & Ito's palette, which the colour-blind can tell apart
# (jfly.uni-koeln.de/color).
COSTS: tuple[Cost, ...] = (
    Cost("energy_mj", "energy", "mJ", in_brief=True, colour="#009E73"),
    Cost("latency_ms", "latency", "ms", in_brief=True, colour="#D55E00"),
    Cost(
        "macs",
        "MACs",
        "",
        of_unit=lambda trace: trace.macs,
        of_kind=lambda trace, kind: trace.macs_of(kind),
        whole=True,
        in_brief=True,
        required=True,
        colour="#0072B2",
    ),
    Cost(
        "params",
        "parameters",
        "",
        of_unit=lambda trace: trace.params,
        of_kind=lambda trace, kind: trace.params_of(kind),
        is_held=True,
        whole=True,
        in_brief=True,
        required=True,
        colour="#8C8C8C",
    ),
    Cost("dram_bytes", "DRAM traffic", "B", colour="#56B4E9"),
    Cost(
        "weight_bytes",
        "weight memory",
        "B",
        of_unit=lambda trace: trace.weight_bytes,
        of_kind=lambda trace, kind: trace.weight_bytes_of(kind),
        is_held=True,
        whole=True,
        colour="#CC79A7",
    ),
    Cost(
        "activation_bytes",
        "activation memory",
        "B",
        combines="max",
        of_unit=lambda trace: trace.activation_bytes,
        whole=True,
        colour="#E69F00",
    ),
)

COST_NAMES: tuple[CostName, ...] = tuple(cost.name for cost in COSTS)


def cost_named(name: CostName) -> Cost:
    """A cost by its name.

    Raises:
        InvalidValueError: there is none.
    """
    for cost in COSTS:
        if cost.name == name:
            return cost
    raise InvalidValueError(f"{name!r} is not a cost; {nearest(name, COST_NAMES)}")


def known_costs(values: Mapping[str, float | None]) -> dict[CostName, float]:
    """Of any values by name, the costs that are known, in the order of :data:`COSTS`; whole numbers
    where a cost has them.
    """
    found = {cost: values.get(cost.name) for cost in COSTS}
    return {
        cost.name: int(value) if cost.whole and math.isfinite(value) else value
        for cost, value in found.items()
        if value is not None
    }
