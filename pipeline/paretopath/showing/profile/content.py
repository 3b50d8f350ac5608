"""Where a path's multiply-accumulates, energy, time and weights are: by kind of operator and by
unit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from paretopath.cost.model import CostModel, Costs
from paretopath.cost.table import CostTable, UnitCost
from paretopath.costs import COST_NAMES, COSTS, CostName, cost_named, known_costs
from paretopath.paths import Value
from paretopath.showing.breakdown import Row
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

    def total(self, name: CostName) -> float | None:
        """A cost of the whole path; None where it is not known."""
        return cost_named(name).combined(row.costs.get(name) for row in self.by_unit)

    def shares(self, rows: Sequence[Row], name: CostName) -> list[float] | None:
        """What share of their sum each row has; None where one of them is unknown, all are 0, or
        the cost is not a sum.
        """
        cost = cost_named(name)
        total = cost.combined(row.costs.get(name) for row in rows)
        return [row.costs[name] / total for row in rows] if total and cost.is_sum else None

    def to_json(self) -> dict[str, Any]:
        """Plain data, shares included."""
        return {
            "path_id": self.path_id,
            "hardware": self.hardware,
            "total": {name: self.total(name) for name in COST_NAMES},
            "by_kind": self._records(self.by_kind),
            "by_unit": self._records(self.by_unit),
            "notes": list(self.notes),
        }

    def _records(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        shares = {name: self.shares(rows, name) for name in COST_NAMES}
        return [
            {
                "name": row.name,
                **{name: row.costs.get(name) for name in COST_NAMES},
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
        by_unit=tuple(Row(unit.unit, unit.costs) for unit in units),
        notes=tuple(notes),
    )


def _by_kind(
    cost_model: CostModel, units: Sequence[UnitCost]
) -> tuple[tuple[Row, ...], Sequence[str]]:
    traces = [unit.trace for unit in units]
    priced, notes = _by_hardware(cost_model, traces)
    rows = []
    for kind in KINDS:
        found = dict(priced.get(kind, {}))
        for cost in COSTS:
            if cost.of_kind is not None:
                found[cost.name] = cost.combined(cost.of_kind(trace, kind) for trace in traces)
        rows.append(Row(kind, known_costs(found)))
    return tuple(rows), notes


def _by_hardware(
    cost_model: CostModel, traces: Sequence[UnitTrace]
) -> tuple[dict[Kind, dict[CostName, float | None]], Sequence[str]]:
    """What each kind of operator costs on the hardware, where that can be told; and notes."""
    layers = [layer for trace in traces for layer in trace.layers]
    if isinstance(cost_model, LayerPricer):
        costs = cost_model.price(layers)
        chosen = {kind: [i for i, y in enumerate(layers) if y.kind == kind] for kind in KINDS}
        hardware = [cost for cost in COSTS if cost.of_unit is None]
        return {
            kind: {cost.name: cost.combined(costs[cost.name][rows].tolist()) for cost in hardware}
            for kind, rows in chosen.items()
        }, []
    if isinstance(cost_model, KindTimer):
        times = cost_model.kind_latency_ms(traces)
        return {kind: {"latency_ms": ms} for kind, ms in times.items()}, [
            "Each operator was timed while the path ran; kinds add up to less than units do, "
            "which hold what passes between operators too. "
            "Energy counters are too slow to tell operators apart."
        ]
    return {}, [f"{cost_model.hardware} prices whole units, not operators."]
