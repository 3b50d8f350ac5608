"""Where a path's multiply-accumulates, energy, time and weights are: by kind of operator and by
unit."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from paretopath.cost.model import CostModel, Costs
from paretopath.cost.table import CostTable, UnitCost
from paretopath.paths import Value
from paretopath.showing.breakdown import QUANTITIES, Quantity, Row
from paretopath.tracing import KINDS, Kind, Layer, UnitTrace


@runtime_checkable
class LayerPricer(Protocol):
    """A cost model that prices single operators."""

    def price(self, layers: Sequence[Layer]) -> Costs:
        """The costs of each layer, in order."""
        ...


@runtime_checkable
class KindTimer(Protocol):
    """A cost model that can't price single operators, but times them where they run."""

    def kind_latency_ms(self, traces: Sequence[UnitTrace]) -> Mapping[Kind, float]:
        """Milliseconds for one image by kind, for the units of one path, in order."""
        ...


@dataclass(frozen=True)
class Profile:
    """Where the costs of a path are.

    Attributes:
        path_id: which path.
        hardware: what energy and latency are for.
        by_kind: a row for each of :data:`~paretopath.tracing.KINDS`.
        by_unit: a row for each unit that runs, in order.
        notes: sentences on what the columns do not say.
    """

    path_id: str
    hardware: str
    by_kind: tuple[Row, ...]
    by_unit: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def total(self, quantity: Quantity) -> float | None:
        """A quantity of the whole path; None where the cost model does not say."""
        return _sum(getattr(row, quantity) for row in self.by_unit)

    def shares(self, rows: Sequence[Row], quantity: Quantity) -> list[float] | None:
        """What share of their sum each row has; None where one of them is unknown, or all are 0."""
        values = [getattr(row, quantity) for row in rows]
        total = _sum(values)
        return [value / total for value in values] if total else None

    def to_json(self) -> dict[str, Any]:
        """Plain data, shares included."""
        return {
            "path_id": self.path_id,
            "hardware": self.hardware,
            "total": {quantity: self.total(quantity) for quantity in QUANTITIES},
            "by_kind": self._records(self.by_kind),
            "by_unit": self._records(self.by_unit),
            "notes": list(self.notes),
        }

    def _records(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        shares = {quantity: self.shares(rows, quantity) for quantity in QUANTITIES}
        return [
            {
                **vars(row),
                "shares": {name: found[i] if found else None for name, found in shares.items()},
            }
            for i, row in enumerate(rows)
        ]


def profile_path(table: CostTable, path: Mapping[str, Value]) -> Profile:
    """The profile of a path on the hardware of a cost table.

    Args:
        table: of the path's space.
        path: any choice of decisions; those that are absent take their fullest value.
    """
    units = table.breakdown(path)
    by_kind, notes = _by_kind(table.cost_model, units)
    return Profile(
        path_id=table.space.canonical(path).id,
        hardware=table.cost_model.hardware,
        by_kind=by_kind,
        by_unit=tuple(
            Row(
                name=unit.unit,
                macs=unit.macs,
                energy_mj=_known(unit.energy_mj),
                latency_ms=_known(unit.latency_ms),
                params=unit.params,
            )
            for unit in units
        ),
        notes=tuple(notes),
    )


def _by_kind(
    cost_model: CostModel, units: Sequence[UnitCost]
) -> tuple[tuple[Row, ...], Sequence[str]]:
    layers = [layer for unit in units for layer in unit.trace.layers]
    params = _params_by_kind(units)
    energy: dict[Kind, float | None] = dict.fromkeys(KINDS, None)
    latency: dict[Kind, float | None] = dict.fromkeys(KINDS, None)
    notes: list[str] = []
    if isinstance(cost_model, LayerPricer):
        costs = cost_model.price(layers)
        for kind in KINDS:
            chosen = [i for i, layer in enumerate(layers) if layer.kind == kind]
            energy[kind] = _sum(costs.energy_mj[chosen].tolist())
            latency[kind] = _sum(costs.latency_ms[chosen].tolist())
    elif isinstance(cost_model, KindTimer):
        latency |= cost_model.kind_latency_ms([unit.trace for unit in units])
        notes.append(
            "Each operator was timed while the path ran; kinds add up to less than units do, "
            "which hold what passes between operators too. "
            "Energy counters are too slow to tell operators apart."
        )
    else:
        notes.append(f"{cost_model.hardware} prices whole units, not operators.")
    rows = tuple(
        Row(
            name=kind,
            macs=sum(layer.macs for layer in layers if layer.kind == kind),
            energy_mj=energy[kind],
            latency_ms=latency[kind],
            params=params[kind],
        )
        for kind in KINDS
    )
    return rows, notes


def _params_by_kind(units: Sequence[UnitCost]) -> dict[Kind, int]:
    """Parameters by the kind of the module that holds them; positions, tokens and scales are
    ``other``."""
    counts: dict[Kind, int] = dict.fromkeys(KINDS, 0)
    for unit in units:
        static = unit.trace.unit.extract(dict(unit.trace.choice))
        counted: set[int] = set()  # a parameter that two modules share counts once
        for module in static.modules():
            for parameter in module.parameters(recurse=False):
                if id(parameter) not in counted:
                    counted.add(id(parameter))
                    counts[_kind_of_module(module)] += parameter.numel()
    return counts


def _kind_of_module(module: nn.Module) -> Kind:
    if isinstance(module, _ConvNd):
        return "convolution"
    if isinstance(module, nn.Linear):
        return "linear"
    if isinstance(module, _NormBase | nn.LayerNorm | nn.GroupNorm | nn.RMSNorm):
        return "normalisation"
    return "other"


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _sum(values: Iterable[float | None]) -> float | None:
    """The sum; None if one is unknown. A sum of nothing is 0."""
    total = 0.0
    for value in values:
        if value is None or not math.isfinite(value):
            return None
        total += value
    return total
