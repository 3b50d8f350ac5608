"""The costs of any number of paths by look-up: each unit's choices are traced and priced once."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from paretopath.cost.model import CostModel, Costs, Floats
from paretopath.costs import COST_NAMES, COSTS, CostName, cost_named, known_costs
from paretopath.elastic import ElasticSpace, Unit
from paretopath.errors import nearest
from paretopath.paths import ABSENT, IndexMatrix, Value
from paretopath.tracing import Tracer, UnitTrace, build_on_meta

Ints = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64 | np.int64]


class PathCosts:
    """Costs of n paths, for a batch of one: for each of :data:`~paretopath.costs.COSTS` an array of
    shape (n,), by its name (``costs["energy_mj"]``) or as an attribute (``costs.energy_mj``).

    Args:
        table: (n, costs), a column for each of :data:`~paretopath.costs.COSTS`; NaN where one is
            not known.
    """

    def __init__(self, table: Floats) -> None:
        self._table = table

    def __getitem__(self, name: str) -> Numbers:
        column: Numbers = self._table[:, COST_NAMES.index(cost_named(name).name)]
        if cost_named(name).whole:
            column = column.round().astype(np.int64)
        return column

    def __getattr__(self, name: str) -> Numbers:
        if name in COST_NAMES:
            return self[name]
        raise AttributeError(f"there is no cost {name!r}; {nearest(name, COST_NAMES)}")

    def __len__(self) -> int:
        return len(self._table)

    def row(self, index: int) -> dict[str, float | int]:
        """One path's costs by name."""
        return {name: self[name][index].item() for name in COST_NAMES}


@dataclass(frozen=True)
class UnitCost:
    """What one unit adds to a path's cost.

    Attributes:
        unit: its name.
        trace: what it does.
        costs: those of :data:`~paretopath.costs.COSTS` that are known.
    """

    unit: str
    trace: UnitTrace
    costs: Mapping[CostName, float]


class _UnitTable:
    """One unit's costs: a row for each combination of its decisions' values, filled when first
    met.
    """

    def __init__(self, unit: Unit, space: ElasticSpace) -> None:
        self.unit = unit
        self.columns = [space.positions[name] for name in unit.decisions]
        sizes = [len(space.decisions[column].values) + 1 for column in self.columns]  # + 1: absent
        self.strides = np.cumprod([1, *sizes[:-1]]).astype(np.int64)[: len(sizes)]
        self.costs = np.full((int(np.prod(sizes, dtype=np.int64)), len(COSTS)), np.nan)
        self.known = np.zeros(len(self.costs), dtype=bool)

    def keys(self, matrix: IndexMatrix) -> Ints:
        """The row of each path: mixed-radix digits, ABSENT counted as the digit 0."""
        keys = np.zeros(len(matrix), dtype=np.int64)
        for column, stride in zip(self.columns, self.strides, strict=True):
            keys += (matrix[:, column].astype(np.int64) - ABSENT) * stride
        return keys


class CostTable:
    """Looks costs up for paths of one space on one hardware.

    The first path that shows a unit in a new form is traced on the meta device and priced; after
    that a path is one look-up for each of its units.

    Args:
        space: whose paths.
        cost_model: prices the traced units.
    """

    def __init__(self, space: ElasticSpace, cost_model: CostModel) -> None:
        self.space = space
        self.cost_model = cost_model
        model = build_on_meta(space)
        self._traces = Tracer(model)
        self._tables = {unit.name: _UnitTable(unit, space) for unit in model.chain}

    def __call__(self, paths: Iterable[Mapping[str, Value]]) -> PathCosts:
        """The costs of canonical paths."""
        return self.encoded(self.space.encode(paths))

    def encoded(self, matrix: IndexMatrix) -> PathCosts:
        """The costs of a canonical index matrix (n_paths, n_decisions), vectorised over paths."""
        totals = np.zeros((len(matrix), len(COSTS)))
        ended = np.zeros(len(matrix), dtype=bool)
        located = []
        for table in self._tables.values():
            runs = ~ended
            if table.unit.requires:
                runs &= self.space.holds_encoded(table.unit.requires, matrix)
            if table.unit.is_exit:
                ended |= runs
            rows = np.flatnonzero(runs)
            located.append((table, rows, table.keys(matrix[rows])))
        self._fill(matrix, located)
        for table, rows, keys in located:
            found = table.costs[keys]
            for column, cost in enumerate(COSTS):
                if cost.is_sum:
                    totals[rows, column] += found[:, column]
                else:
                    totals[rows, column] = np.maximum(totals[rows, column], found[:, column])
        return PathCosts(totals)

    def breakdown(self, path: Mapping[str, Value]) -> list[UnitCost]:
        """What each unit of a path costs, in the order in which they run."""
        traces = self._traces(self.space.canonical(path))
        costs = self.cost_model.unit_costs(traces)
        return [
            UnitCost(trace.unit.name, trace, known_costs(_by_name(_row(costs, i, trace))))
            for i, trace in enumerate(traces)
        ]

    def rows(self) -> dict[str, tuple[Ints, Floats]]:
        """For each unit, the keys of the n forms that were priced, and their (n, costs) costs."""
        tables = self._tables.items()
        known = {name: np.flatnonzero(table.known) for name, table in tables}
        return {name: (keys, self._tables[name].costs[keys]) for name, keys in known.items()}

    def add_rows(self, rows: Mapping[str, tuple[Ints, Floats]]) -> None:
        """Adds rows of :meth:`rows` of another table of the same space and hardware.

        Raises:
            KeyError, IndexError, ValueError: they are of another space.
        """
        for name, (keys, costs) in rows.items():
            self._tables[name].costs[keys] = costs
            self._tables[name].known[keys] = True

    def _fill(self, matrix: IndexMatrix, located: list[tuple[_UnitTable, Ints, Ints]]) -> None:
        """Traces and prices each (unit, form) that the matrix holds and the tables do not."""
        pending: dict[tuple[str, int], UnitTrace] = {}
        for table, rows, keys in located:
            unknown = ~table.known[keys]
            if not unknown.any():
                continue
            new_keys, first = np.unique(keys[unknown], return_index=True)
            for key, row in zip(new_keys.tolist(), rows[unknown][first].tolist(), strict=True):
                if (table.unit.name, key) not in pending:
                    pending.update(self._trace(matrix[row : row + 1]))
        if not pending:
            return
        traces = list(pending.values())
        costs = self.cost_model.unit_costs(traces)
        for i, ((name, key), trace) in enumerate(pending.items()):
            table = self._tables[name]
            table.costs[key] = _row(costs, i, trace)
            table.known[key] = True

    def _trace(self, row: IndexMatrix) -> dict[tuple[str, int], UnitTrace]:
        traces = self._traces(self.space.decode(row)[0])
        return {
            (trace.unit.name, int(self._tables[trace.unit.name].keys(row)[0])): trace
            for trace in traces
        }


def _row(costs: Costs, index: int, trace: UnitTrace) -> list[float]:
    return [
        float(costs[cost.name][index] if cost.of_unit is None else cost.of_unit(trace))
        for cost in COSTS
    ]


def _by_name(row: Sequence[float]) -> dict[CostName, float | None]:
    return {
        name: value if math.isfinite(value) else None
        for name, value in zip(COST_NAMES, row, strict=True)
    }
