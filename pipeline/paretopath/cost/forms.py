"""The forms of one unit, each with what it costs: found for many paths at once."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from paretopath.costs import COSTS
from paretopath.elastic import ElasticSpace, Unit
from paretopath.errors import InvalidValueError
from paretopath.paths import ABSENT, IndexMatrix

Ints = npt.NDArray[np.int64]
Rows = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]

UNKNOWN = -1
_DENSE = 1 << 16  # keys up to which an array is looked up: it stays in a core's cache


@dataclass(frozen=True)
class UnitForms:
    """n forms of a unit, as they are kept in a file.

    Attributes:
        choices: (n,) the values of the unit's own decisions, as one number.
        reached: (n,) signatures of the states that reach it.
        left: (n,) signatures of the states that it leaves.
        costs: (n, costs), a column for each of :data:`~paretopath.costs.COSTS`.
    """

    choices: Ints
    reached: npt.NDArray[np.str_]
    left: npt.NDArray[np.str_]
    costs: Floats


class UnitTable:
    """One unit's forms: a row for each choice of its own decisions and each shape of what reaches
    it, as they are met. States are numbers that the caller gives them.

    Args:
        unit: whose forms.
        space: of its decisions.

    Attributes:
        sums, maxima: (rows, …) the costs that add up, and those whose largest counts.
        left: (rows,) the state that each form leaves. As these arrays are after :meth:`find`.

    Raises:
        InvalidValueError: the unit depends on more choices than can be numbered.
    """

    def __init__(self, unit: Unit, space: ElasticSpace) -> None:
        self.unit = unit
        self._columns = [space.positions[name] for name in unit.decisions]
        self._strides, self._choices = [], 1
        for column in self._columns:
            self._strides.append(self._choices)
            self._choices *= len(space.decisions[column].values) + 1  # + 1: absent
        if self._choices > 2**48:
            raise InvalidValueError(
                f"a unit may depend on up to 2^48 choices, but {unit.name!r} has "
                f"{self._choices:.3g}: list only its own decisions, what others do is in the state"
            )
        self._rows: dict[tuple[int, int], int] = {}
        self._left: list[int] = []
        self._costs: list[list[float]] = []
        self._stale = True

    def __len__(self) -> int:
        return len(self._rows)

    def choices(self, matrix: IndexMatrix) -> Ints:
        """The choice of each path: mixed-radix digits, ABSENT counted as the digit 0."""
        total = np.zeros(len(matrix), dtype=np.int64)
        for column, stride in zip(self._columns, self._strides, strict=True):
            total += (matrix[:, column].astype(np.int64) - ABSENT) * stride
        return total

    def find(self, choices: Ints, states: Ints) -> Rows:
        """The row of each path, :data:`UNKNOWN` where its form was not met."""
        self._index()
        keys = choices + self._places.take(states, mode="clip") * self._choices
        if self._dense is not None:
            return self._dense.take(keys)
        at = np.searchsorted(self._keys, keys)
        return np.where(self._keys[at] == keys, self._order[at], UNKNOWN)

    def has(self, choice: int, state: int) -> bool:
        """Whether a form was met."""
        return (choice, state) in self._rows

    def add(self, choice: int, state: int, left: int, costs: list[float] | None = None) -> int:
        """Adds a form.

        Args:
            choice: of its own decisions.
            state: what reaches it.
            left: the state that it leaves.
            costs: a number for each of :data:`~paretopath.costs.COSTS`; they can be set later.

        Returns:
            Its row.
        """
        row = self._rows.setdefault((choice, state), len(self._rows))
        if row == len(self._costs):
            self._left.append(left)
            self._costs.append(costs or [np.nan] * len(COSTS))
        else:
            self._left[row], self._costs[row] = left, costs or self._costs[row]
        self._stale = True
        return row

    def set_costs(self, row: int, costs: list[float]) -> None:
        """Says what a form costs."""
        self._costs[row] = costs
        self._stale = True

    def keep(self, count: int) -> None:
        """Forgets all forms but the first so many."""
        self._rows = {key: row for key, row in self._rows.items() if row < count}
        del self._left[count:], self._costs[count:]
        self._stale = True

    def forms(self, names: npt.NDArray[np.str_]) -> UnitForms:
        """All forms, states by their names (by number)."""
        self._index()
        return UnitForms(
            choices=np.array([choice for choice, _ in self._rows], dtype=np.int64),
            reached=names[np.array([state for _, state in self._rows], dtype=np.intp)],
            left=names[self.left],
            costs=np.array(self._costs, dtype=np.float64).reshape(len(self._rows), len(COSTS)),
        )

    def _index(self) -> None:
        """Brings the arrays up to date with what was added."""
        if not self._stale:
            return
        met = list(dict.fromkeys(state for _, state in self._rows))
        # place 0, and whatever is beyond the end, is that of states that were not met
        self._places = np.zeros(max(met, default=-1) + 2, dtype=np.int64)
        self._places[met] = np.arange(1, len(met) + 1)
        keys = [c + int(self._places[state]) * self._choices for c, state in self._rows]
        span = (len(met) + 1) * self._choices
        self._dense: Rows | None = None
        if span <= _DENSE:
            self._dense = np.full(span, UNKNOWN, dtype=np.intp)
            self._dense[keys] = np.arange(len(keys))
        numbers = np.array(keys, dtype=np.int64)
        self._order: Rows = np.append(np.argsort(numbers), UNKNOWN)
        self._keys = np.append(np.sort(numbers), np.iinfo(np.int64).max)
        costs = np.array(self._costs, dtype=np.float64).reshape(len(keys), len(COSTS))
        is_sum = np.array([cost.is_sum for cost in COSTS])
        self.sums = np.ascontiguousarray(costs[:, is_sum])
        self.maxima = np.ascontiguousarray(costs[:, ~is_sum])
        self.left = np.array(self._left, dtype=np.int64)
        self._stale = False
