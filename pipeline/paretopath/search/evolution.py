"""A genetic search of the accuracy model with exact costs: the best path of every cost."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from paretopath.paths import ABSENT, IndexMatrix, SearchSpace
from paretopath.search.candidates import Floats, Problem

_BATCH = 3000  # children made and scored at once
_NEAR = 5  # parents are crossed with one of so many neighbours in cost on either side


@dataclass(frozen=True)
class Archive:
    """Paths with what is known and believed about them.

    Attributes:
        matrix: (n, n_decisions) canonical rows.
        value: (n,) what the search maximises.
        cost: (n,) exact costs, finite.
        is_new: (n,) false for paths that were already evaluated.
    """

    matrix: IndexMatrix
    value: Floats
    cost: Floats
    is_new: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.matrix)

    def take(self, rows: npt.NDArray[np.intp]) -> "Archive":
        """Some of the paths, in the given order."""
        return Archive(self.matrix[rows], self.value[rows], self.cost[rows], self.is_new[rows])

    def join(self, other: "Archive") -> "Archive":
        """Both."""
        return Archive(
            np.concatenate([self.matrix, other.matrix]),
            np.concatenate([self.value, other.value]),
            np.concatenate([self.cost, other.cost]),
            np.concatenate([self.is_new, other.is_new]),
        )


def evolve(
    problem: Problem,
    value_of: Callable[[IndexMatrix], Floats],
    evaluated: IndexMatrix,
    rng: np.random.Generator,
    *,
    evaluations: int,
    bins: int,
) -> Archive:
    """The best new path and the best evaluated one in each of many bins of cost, by rising cost.

    Args:
        problem: the space, the costs and the budgets; nothing over a budget is kept.
        value_of: what to maximise at each cost, for an index matrix.
        evaluated: where to start, (n, n_decisions), at least one row within the budgets.
        rng: the only source of randomness.
        evaluations: how many children are made.
        bins: how many, of equal width between the cheapest and the costliest path met.
    """
    breeder = _Breeder(problem.space)
    seen = np.sort(problem.trial_keys(evaluated))
    archive = _thin(_judge(problem, value_of, evaluated, seen), bins)
    for _ in range(-(-evaluations // _BATCH)):
        children = breeder.breed(archive.matrix, _BATCH, rng)
        _, first = np.unique(problem.keys(children), return_index=True)
        archive = _thin(archive.join(_judge(problem, value_of, children[first], seen)), bins)
    return archive


class _Breeder:
    """Makes children of paths by crossover and mutation.

    Args:
        space: of the paths.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        legal = [[d.index(value) for value in d.distinct] for d in space.decisions]
        self._counts = np.array([len(indices) for indices in legal])
        self._legal = np.zeros((len(legal), self._counts.max()), dtype=np.int16)
        for row, indices in zip(self._legal, legal, strict=True):
            row[: len(indices)] = indices
        self._fullest = np.array([indices[-1] for indices in legal], dtype=np.int16)

    def breed(self, parents: IndexMatrix, count: int, rng: np.random.Generator) -> IndexMatrix:
        """``count`` canonical children.

        A quarter are crossed with a neighbour in cost, a half mutated, a quarter both.

        Args:
            parents: (n, n_decisions), by rising cost.
            count: how many children.
            rng: the only source of randomness.
        """
        chosen = rng.integers(len(parents), size=count)
        shift = rng.integers(-_NEAR, _NEAR + 1, size=count)
        partner = np.clip(chosen + shift, 0, len(parents) - 1)
        crossed = rng.random(count) < 0.5
        mutated = ~crossed | (rng.random(count) < 0.5)
        swap = crossed[:, None] & (rng.random((count, parents.shape[1])) < 0.5)
        children = np.where(swap, parents[partner], parents[chosen])
        # absent genes stand at their fullest value, so that a crossover that wakes them has one
        children = np.where(children == ABSENT, self._fullest, children)
        return self._space.canonical_encoded(self._mutate(children, mutated, rng))

    def _mutate(
        self, rows: IndexMatrix, mutated: npt.NDArray[np.bool_], rng: np.random.Generator
    ) -> IndexMatrix:
        """Gives one to three random decisions of the rows to mutate random values."""
        changes = np.where(mutated, rng.integers(1, 4, size=len(rows)), 0)
        for change in range(3):
            row = np.flatnonzero(changes > change)
            column = rng.integers(rows.shape[1], size=len(row))
            value = (rng.random(len(row)) * self._counts[column]).astype(np.intp)
            rows[row, column] = self._legal[column, value]
        return rows


def _judge(
    problem: Problem,
    value_of: Callable[[IndexMatrix], Floats],
    rows: IndexMatrix,
    seen: npt.NDArray[np.uint64],
) -> Archive:
    """The rows that meet the budgets, with their values and costs; ``seen`` are sorted keys."""
    cost, excess = problem.price(rows)
    keep = np.isfinite(cost) & (excess <= 0)
    rows, cost = rows[keep], cost[keep]
    keys = problem.trial_keys(rows)
    place = np.minimum(np.searchsorted(seen, keys), len(seen) - 1)
    return Archive(rows, value_of(rows), cost, seen[place] != keys)


def _thin(archive: Archive, bins: int) -> Archive:
    """The best new and the best evaluated path of each bin, by rising cost."""
    low, high = archive.cost.min(), archive.cost.max()
    width = max((high - low) / bins, 1e-300)
    group = 2 * np.minimum((archive.cost - low) / width, bins - 1).astype(np.int64)
    group += archive.is_new
    order = np.lexsort((-archive.value, group))
    ordered = group[order]
    first = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    kept = order[first]
    return archive.take(kept[np.argsort(archive.cost[kept], kind="stable")])
