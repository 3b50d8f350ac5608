"""The costs of any number of paths by look-up: each form of a unit is traced and priced once."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from paretopath.cost.forms import UNKNOWN, Floats, Ints, Rows, UnitForms, UnitTable
from paretopath.cost.model import CostModel, Costs
from paretopath.costs import COST_NAMES, COSTS, CostName, cost_named, known_costs
from paretopath.elastic import ElasticSpace
from paretopath.errors import nearest
from paretopath.paths import IndexMatrix, Value
from paretopath.progress import Progress, unheard
from paretopath.tracing import Tracer, UnitTrace, build_on_meta, signature

Numbers = npt.NDArray[np.float64 | np.int64]

BLOCK = 1 << 13  # paths that are looked up together: few enough to stay in a core's cache


class PathCosts:
    """Costs of n paths, for a batch of one: for each of :data:`~paretopath.costs.COSTS` an array of
    shape (n,), by its name (``costs["energy_mj"]``) or as an attribute (``costs.energy_mj``).

    Args:
        table: (n, costs), a column for each of :data:`~paretopath.costs.COSTS`; NaN where one is
            not known.

    Attributes:
        table: the same.
    """

    def __init__(self, table: Floats) -> None:
        self.table = table

    def __getitem__(self, name: str) -> Numbers:
        column: Numbers = self.table[:, COST_NAMES.index(cost_named(name).name)]
        if cost_named(name).whole:
            column = column.round().astype(np.int64)
        return column

    def __getattr__(self, name: str) -> Numbers:
        if name in COST_NAMES:
            return self[name]
        raise AttributeError(f"there is no cost {name!r}; {nearest(name, COST_NAMES)}")

    def __len__(self) -> int:
        return len(self.table)

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


class CostTable:
    """Looks costs up for paths of one space on one hardware.

    The first path that shows a unit in a new form (another choice of its own decisions, or another
    shape of what reaches it) is traced on the meta device and priced; after that a path is one
    look-up for each of its units.

    Args:
        space: whose paths.
        cost_model: prices the traced units.
        progress: told (units, all units) whose new forms are traced, if there are any.
    """

    def __init__(
        self, space: ElasticSpace, cost_model: CostModel, *, progress: Progress = unheard
    ) -> None:
        self.space = space
        self.cost_model = cost_model
        self.progress = progress
        model = build_on_meta(space)
        self._traces = Tracer(model)
        self._tables = {unit.name: UnitTable(unit, space) for unit in model.chain}
        self._states: dict[str, int] = {}  # signature: number, in the order in which they were met
        self._unpriced: list[tuple[UnitTable, int, UnitTrace]] = []

    def __call__(self, paths: Iterable[Mapping[str, Value]]) -> PathCosts:
        """The costs of canonical paths."""
        return self.encoded(self.space.encode(paths))

    def encoded(self, matrix: IndexMatrix) -> PathCosts:
        """The costs of a canonical index matrix (n_paths, n_decisions), vectorised over paths."""
        return self._encoded(matrix)

    def ends(self, matrix: IndexMatrix) -> PathCosts:
        """What the exits alone cost at which paths end, for the same matrix."""
        return self._encoded(matrix, exits_alone=True)

    def _encoded(self, matrix: IndexMatrix, *, exits_alone: bool = False) -> PathCosts:
        totals = np.zeros((len(matrix), len(COSTS)))
        blocks = [slice(start, start + BLOCK) for start in range(0, len(matrix), BLOCK)]
        sum_up = partial(self._sum_up, exits_alone=exits_alone)
        later = [block for block in blocks if not sum_up(matrix[block], totals[block])]
        self._price()  # all new forms at once
        for block in later:
            sum_up(matrix[block], totals[block])
        return PathCosts(totals)

    def breakdown(self, path: Mapping[str, Value]) -> list[UnitCost]:
        """What each unit of a path costs, in the order in which they run."""
        traces = self._traces(self.space.canonical(path))
        costs = self.cost_model.unit_costs(traces)
        return [
            UnitCost(trace.unit.name, trace, known_costs(_by_name(_row(costs, i, trace))))
            for i, trace in enumerate(traces)
        ]

    def forms(self) -> dict[str, UnitForms]:
        """The forms that were priced, by unit."""
        names = np.array(list(self._states), dtype=np.str_)
        return {name: table.forms(names) for name, table in self._tables.items()}

    def add_forms(self, forms: Mapping[str, UnitForms]) -> None:
        """Adds :meth:`forms` of another table of the same space and hardware.

        Raises:
            KeyError: they are of another space.
        """
        for name, found in forms.items():
            reached = [self._state(state) for state in found.reached.tolist()]
            left = [self._state(state) for state in found.left.tolist()]
            rows = zip(found.choices.tolist(), reached, left, found.costs.tolist(), strict=True)
            for choice, state, out, costs in rows:
                self._tables[name].add(choice, state, out, costs)

    def _state(self, name: str) -> int:
        return self._states.setdefault(name, len(self._states))

    def _sum_up(self, matrix: IndexMatrix, totals: Floats, *, exits_alone: bool) -> bool:
        """Puts what paths, or their exits, cost into ``totals`` (n_paths, costs), unless a form is
        not priced yet.

        Returns:
            Whether all are priced.
        """
        is_sum = np.array([cost.is_sum for cost in COSTS])
        sums, maxima = np.zeros((len(matrix), sum(is_sum))), np.zeros((len(matrix), sum(~is_sum)))
        states = np.full(len(matrix), self._state(signature(self._traces.images)))
        ended = np.zeros(len(matrix), dtype=bool)
        for number, table in enumerate(self._tables.values()):
            runs = ~ended
            if table.unit.requires:
                runs &= self.space.holds_encoded(table.unit.requires, matrix)
            if table.unit.is_exit:
                ended |= runs
            if not runs.any():
                continue
            mine: slice | Rows = slice(None) if runs.all() else np.flatnonzero(runs)
            rows = self._rows(table, matrix[mine], states[mine], number)
            if not self._unpriced and (table.unit.is_exit or not exits_alone):
                sums[mine] += table.sums.take(rows, axis=0)
                maxima[mine] = np.maximum(maxima[mine], table.maxima.take(rows, axis=0))
            states[mine] = table.left.take(rows)
        if self._unpriced:
            self.progress(len(self._tables), len(self._tables))
        totals[:, is_sum], totals[:, ~is_sum] = sums, maxima
        return not self._unpriced

    def _rows(self, table: UnitTable, matrix: IndexMatrix, states: Ints, number: int) -> Rows:
        """The rows of a unit's table for paths that run it; new forms are traced.

        Args:
            table: the unit's.
            matrix: (n_paths, n_decisions).
            states: (n_paths,) what reaches it.
            number: its place among the units, for the progress.
        """
        choices = table.choices(matrix)
        rows = table.find(choices, states)
        unknown = np.flatnonzero(rows == UNKNOWN)
        if not len(unknown):
            return rows
        self.progress(number, len(self._tables))
        new = np.stack([choices[unknown], states[unknown]], axis=1)
        for (choice, state), i in zip(*np.unique(new, axis=0, return_index=True), strict=True):
            if not table.has(int(choice), int(state)):
                self._trace(matrix[unknown[i]][None])
        return table.find(choices, states)

    def _trace(self, row: IndexMatrix) -> None:
        """Adds the forms of one path that were not met, to be priced."""
        for trace in self._traces(self.space.decode(row)[0]):
            table = self._tables[trace.unit.name]
            choice, state = int(table.choices(row)[0]), self._state(signature(trace.state))
            if not table.has(choice, state):
                added = table.add(choice, state, self._state(signature(trace.out)))
                self._unpriced.append((table, added, trace))

    def _price(self) -> None:
        """Prices what was traced. If that fails it is as if it had never been met."""
        pending, self._unpriced = self._unpriced, []
        if not pending:
            return
        try:
            costs = self.cost_model.unit_costs([trace for _, _, trace in pending])
        except BaseException:
            for table, row, _ in reversed(pending):
                table.keep(row)
            raise
        for i, (table, row, trace) in enumerate(pending):
            table.set_costs(row, _row(costs, i, trace))


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
