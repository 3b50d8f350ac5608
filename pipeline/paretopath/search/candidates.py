"""Which paths may be evaluated next: within the budgets, never seen, and where to begin."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import numpy.typing as npt

from paretopath.costs import cost_named
from paretopath.errors import InvalidValueError
from paretopath.paths import ABSENT, ExecutionPath, IndexMatrix, SearchSpace
from paretopath.quantities import told_apart

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

ENUMERABLE = 20_000  # spaces up to this size are listed whole when sampling finds nothing new


class PricedPaths(Protocol):
    """The costs of n paths."""

    def __getitem__(self, name: str, /) -> npt.NDArray[np.float64 | np.int64]:
        """One of :data:`~paretopath.costs.COSTS`, shape (n,); NaN where it is not known."""
        ...


class Pricer(Protocol):
    """What a path costs, exactly and for nothing: a :class:`~paretopath.cost.table.CostTable`."""

    def encoded(self, matrix: IndexMatrix) -> PricedPaths:
        """The costs of a canonical index matrix (n_paths, n_decisions)."""
        ...


@dataclass(frozen=True)
class Problem:
    """What is searched, against which cost, under which budgets.

    Attributes:
        space: the paths.
        pricer: their costs.
        cost: the second objective, one of :data:`~paretopath.costs.COSTS`.
        budgets: upper bounds, by the name of a cost.

    Raises:
        InvalidValueError: a name that is no cost, or a budget that is not a positive number.
    """

    space: SearchSpace
    pricer: Pricer
    cost: str
    budgets: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (self.cost, *self.budgets):
            cost_named(name)
        for name, bound in self.budgets.items():
            if not bound > 0:
                raise InvalidValueError(f"a budget must be positive, but {name} got {bound}")

    def cost_of(self, matrix: IndexMatrix) -> Floats:
        """The objective cost of each path."""
        return np.asarray(self.pricer.encoded(matrix)[self.cost], dtype=float)

    def price(self, matrix: IndexMatrix) -> tuple[Floats, Floats]:
        """The objective cost of each path, and by which share it misses the budgets (0: it fits).

        A cost that is not finite is passed on, not counted as a miss: such a path fails by name, it
        isn't hidden.
        """
        priced = self.pricer.encoded(matrix)
        excess = np.zeros(len(matrix))
        for name, bound in self.budgets.items():
            over = np.asarray(priced[name], dtype=float) / bound - 1
            excess = np.where(over > excess, over, excess)
        return np.asarray(priced[self.cost], dtype=float), excess

    def fits(self, matrix: IndexMatrix) -> Mask:
        """Whether each path meets every budget."""
        return self.price(matrix)[1] <= 0

    @cached_property
    def keys(self) -> "PathKeys":
        """Hashes of this space's paths."""
        return PathKeys(self.space)

    @cached_property
    def trial_keys(self) -> "PathKeys":
        """Hashes of what must be evaluated: the same for paths of which one trial tells."""
        return PathKeys(self.space, without=self.space.told)

    @cached_property
    def cheapest(self) -> IndexMatrix:
        """(1, n_decisions): the smallest path or, where it misses a budget, one near that doesn't.

        Raises:
            InvalidValueError: no path was found within the budgets.
        """
        row = self.space.encode([self.space.smallest])
        excess = self.price(row)[1][0]
        while excess > 0:
            around = neighbours(self.space, row)
            excesses = self.price(around)[1] if len(around) else np.array([excess])
            best = int(np.argmin(excesses))
            if excesses[best] >= excess:
                priced = self.pricer.encoded(row)
                raise InvalidValueError(self._unmet(priced))
            row, excess = around[best : best + 1], excesses[best]
        return row

    def _unmet(self, priced: PricedPaths) -> str:
        """That nothing fits the budgets, with what the cheapest path (priced) takes."""
        wants: list[str] = []
        has: list[str] = []
        for name, bound in self.budgets.items():
            cost = cost_named(name)
            allowed, least = told_apart(bound, float(priced[name][0]), cost.unit)
            wants.append(cost.phrase(allowed))
            has.append(cost.phrase(least))
        return (
            f"no path of the space fits a budget of {' and '.join(wants)}: "
            f"the cheapest one found takes {' and '.join(has)}"
        )


class PathKeys:
    """A 64-bit hash of each row of an index matrix: a random word a value, exclusive-ored (Zobrist,
    1970).

    Two of n paths share a key with a probability of about n² / 2^65: 3e-10 for 100,000.

    Args:
        space: of the paths.
        without: decisions that don't count.
    """

    def __init__(self, space: SearchSpace, *, without: Collection[str] = ()) -> None:
        widest = max(len(d.values) for d in space.decisions)
        rng = np.random.default_rng(0)
        shape = (len(space.decisions), widest + 1)
        self._words = rng.integers(0, 2**64, size=shape, dtype=np.uint64)
        self._words[[space.positions[name] for name in without]] = 0

    def __call__(self, matrix: IndexMatrix) -> npt.NDArray[np.uint64]:
        """(n_paths, n_decisions) -> (n_paths,)."""
        keys = np.zeros(len(matrix), dtype=np.uint64)
        for column, words in zip(matrix.T, self._words, strict=True):
            keys ^= words[column]  # ABSENT is -1: the last word
        return keys


def fresh(problem: Problem, rows: IndexMatrix, seen: IndexMatrix) -> IndexMatrix:
    """The rows that meet the budgets, each once, in order, without those of ``seen``; of those of
    which one trial tells, the first.
    """
    rows = rows[problem.fits(rows)]
    keys = problem.trial_keys(rows)
    _, first = np.unique(keys, return_index=True)
    new = np.zeros(len(rows), dtype=bool)
    new[first] = True
    return rows[new & ~np.isin(keys, problem.trial_keys(seen))]


def neighbours(space: SearchSpace, row: IndexMatrix) -> IndexMatrix:
    """Every path that differs from one (shape (1, n_decisions)) in one decision that matters."""
    rows = []
    for column, decision in enumerate(space.decisions):
        for value in decision.distinct if row[0, column] != ABSENT else ():
            if decision.index(value) != row[0, column]:
                changed = row[0].copy()
                changed[column] = decision.index(value)
                rows.append(changed)
    return space.canonical_encoded(np.array(rows, dtype=np.int16).reshape(len(rows), row.shape[1]))


def enumerate_paths(space: SearchSpace) -> IndexMatrix:
    """All canonical paths of a small space, (space.size, n_decisions)."""
    rows = np.zeros((1, 0), dtype=np.int16)
    for decision in space.decisions:
        indices = np.array([decision.index(value) for value in decision.distinct], dtype=np.int16)
        matters = np.ones(len(rows), dtype=bool)
        if decision.requires:
            matters = space.holds_encoded(decision.requires, rows)
        repeats = np.where(matters, len(indices), 1)
        column = np.full(repeats.sum(), ABSENT, dtype=np.int16)
        column[np.repeat(matters, repeats)] = np.tile(indices, int(matters.sum()))
        rows = np.concatenate([np.repeat(rows, repeats, axis=0), column[:, None]], axis=1)
    return rows


def repair(problem: Problem, rows: IndexMatrix, rng: np.random.Generator) -> IndexMatrix:
    """Cheaper paths in place of those that miss a budget.

    Each of them takes, for a random half, then three quarters … of its decisions, the values of the
    cheapest path until it fits; the last step is that path itself.
    """
    rows = rows.copy()
    over = np.flatnonzero(~problem.fits(rows))
    order = rng.random((len(over), rows.shape[1]))
    for share in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        if not len(over):
            break
        mixed = np.where(order < share, problem.cheapest, rows[over])
        mixed[(mixed == ABSENT)] = (
            0  # a decision that the cheapest path does not have: its cheapest value
        )
        mixed = problem.space.canonical_encoded(mixed)
        fits = problem.fits(mixed)
        rows[over[fits]] = mixed[fits]
        over, order = over[~fits], order[~fits]
    return rows


def random_paths(
    problem: Problem, seen: IndexMatrix, count: int, rng: np.random.Generator
) -> IndexMatrix:
    """Up to ``count`` random paths within the budgets, not in ``seen``; fewer if there are no more.

    Uniform over each decision's values; where that finds too few, around the seen ones, and in a
    small space among all that are left.
    """
    found = np.zeros((0, seen.shape[1]), dtype=np.int16)
    for attempt in range(20):
        missing = count - len(found)
        if missing <= 0:
            break
        batch = problem.space.sample_encoded(rng, max(4 * missing, 64))
        known = np.concatenate([seen, found])
        if attempt >= 5 and len(known):
            near = known[rng.integers(len(known), size=len(batch))]
            change = rng.random(batch.shape) < 2 / batch.shape[1]
            batch = problem.space.canonical_encoded(np.where(change, batch, near))
        batch = fresh(problem, repair(problem, batch, rng), known)
        found = np.concatenate([found, batch[:missing]])
    if len(found) < count and problem.space.size <= ENUMERABLE:
        rest = fresh(problem, enumerate_paths(problem.space), np.concatenate([seen, found]))
        found = np.concatenate([found, rng.permutation(rest)[: count - len(found)]])
    return found


def starting_paths(
    problem: Problem, rungs: int, named: Sequence[ExecutionPath] = ()
) -> IndexMatrix:
    """Where every search begins: the full path, those that the user named, the smallest, and a
    ladder between it and the full one.

    The full path comes first even where it misses a budget: it is what accuracy and savings are
    measured against. Every other one fits. On a rung all decisions stand about equally high,
    staggered so that they don't all step at once.
    """
    space = problem.space
    full, smallest = space.encode([space.full]), space.encode([space.smallest])
    sizes = np.array([len(d.values) for d in space.decisions])
    golden = (
        np.sqrt(5) - 1
    ) / 2  # its multiples are spread evenly over [0, 1): a low-discrepancy stagger
    stagger = np.arange(len(sizes)) * golden % 1
    finest = np.linspace(0, 1, 8 * max(rungs, 1) + 2)[1:-1, None]
    ladder = np.floor(finest * (sizes - 1) + stagger).astype(np.int16)
    ladder = space.canonical_encoded(np.minimum(ladder, sizes - 1).astype(np.int16))
    ladder = fresh(problem, ladder, np.concatenate([full, smallest]))
    ladder = ladder[np.argsort(problem.cost_of(ladder), kind="stable")]
    if rungs < len(ladder):
        ladder = ladder[np.linspace(0, len(ladder) - 1, rungs + 2).round().astype(int)[1:-1]]
    first = np.concatenate([space.encode(named), smallest, problem.cheapest, ladder])
    return np.concatenate([full, fresh(problem, first, full)])
