"""Decisions, execution paths and the space of all of them: pure data, no model.

A search space is a list of decisions. A decision may require that another one takes certain values;
where it does not matter it is absent. That single rule makes paths canonical: two choices that give
the same network are the same path.
"""

import copy
import fnmatch
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from paretopath.errors import InvalidPathError, InvalidValueError, nearest

Value = bool | int | float | str
IndexMatrix = npt.NDArray[np.int16]

ABSENT = -1


@dataclass(frozen=True)
class Condition:
    """Holds where ``decision`` matters and takes one of ``values``."""

    decision: str
    values: tuple[Value, ...]

    def holds(self, path: Mapping[str, Value]) -> bool:
        """Whether a (canonical) path meets the condition."""
        return self.decision in path and path[self.decision] in self.values


@dataclass(frozen=True)
class Decision:
    """One searchable variable.

    Attributes:
        name: dotted, from the outside in: ``blocks.3.mlp_ratio``.
        values: from cheapest to fullest, all distinct.
        requires: where the decision matters; everywhere if None.
        aliases: values that give the same network as another one, mapped to that one; canonical
            paths never hold them.
    """

    name: str
    values: tuple[Value, ...]
    requires: Condition | None = None
    aliases: Mapping[Value, Value] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not self.values or len(set(self.values)) != len(self.values):
            raise InvalidValueError(
                f"the values of a decision must be distinct and at least one, "
                f"but {self.name!r} got {self.values}"
            )

    @cached_property
    def distinct(self) -> tuple[Value, ...]:
        """The values that give different networks."""
        return tuple(value for value in self.values if value not in self.aliases)

    def restricted(self, allowed: Sequence[Value]) -> "Decision":
        """The decision with some of its values alone, in its own order.

        An alias stays if what it stands for stays.

        Raises:
            InvalidPathError: a value that it does not have.
            InvalidValueError: no value.
        """
        chosen = [self.values[self.index(value)] for value in allowed]
        distinct = {self.aliases.get(value, value) for value in chosen}
        values = tuple(v for v in self.values if v in distinct or v in chosen)
        aliases = {a: target for a, target in self.aliases.items() if a in values}
        return replace(self, values=values, aliases=aliases)

    def index(self, value: Value) -> int:
        """The index of a value among ``values``; InvalidPathError if it is not one of them."""
        try:
            return self.values.index(value)
        except ValueError:
            raise InvalidPathError(
                f"decision {self.name!r} can't be {value!r}; {nearest(value, self.values)}"
            ) from None


class ExecutionPath(Mapping[str, Value]):
    """An immutable, hashable choice of one value for each decision that matters.

    Make one with :meth:`SearchSpace.canonical`, which drops what does not matter.
    """

    __slots__ = ("_hash", "_values")

    def __init__(self, values: Mapping[str, Value]) -> None:
        self._values = dict(values)
        self._hash = hash(frozenset(self._values.items()))

    def __getitem__(self, name: str) -> Value:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[type["ExecutionPath"], tuple[dict[str, Value]]]:
        # a pickle must not carry the hash: text hashes differently in each process
        return ExecutionPath, (self._values,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mapping) and self._values == dict(other)

    def __repr__(self) -> str:
        return f"ExecutionPath({self._values})"

    @property
    def id(self) -> str:
        """Ten hexadecimal digits that name the path in files and on the command line."""
        text = json.dumps(self._values, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:10]


class SearchSpace:
    """The decisions of one model family and the algebra of its paths.

    Paths have two forms: :class:`ExecutionPath` for people and models, and rows of an index matrix
        of shape
    (n_paths, n_decisions) for searching millions: the index of each decision's value,
    :data:`ABSENT` where it does not matter.

    Args:
        decisions: each one after the decision that it requires.

    Attributes:
        whole: the space itself, or the one of which it is a restriction.
        told: names of decisions whose values are all told of by evaluating one
            (:class:`~paretopath.tasks.task.Told`): paths that differ in them alone need one trial.
    """

    told: frozenset[str] = frozenset()

    def __init__(self, decisions: Sequence[Decision]) -> None:
        self.decisions: tuple[Decision, ...] = tuple(decisions)
        self.positions: dict[str, int] = {d.name: i for i, d in enumerate(self.decisions)}
        self.whole = self
        if len(self.positions) != len(self.decisions):
            raise InvalidValueError("the decisions of a search space must have distinct names")
        for i, decision in enumerate(self.decisions):
            needed = decision.requires
            if needed and self.positions.get(needed.decision, len(self.decisions)) >= i:
                raise InvalidValueError(
                    f"decision {decision.name!r} must stand after {needed.decision!r}, "
                    f"which it requires"
                )

    def __getitem__(self, name: str) -> Decision:
        try:
            return self.decisions[self.positions[name]]
        except KeyError:
            raise InvalidPathError(
                f"there is no decision {name!r}; {nearest(name, self.positions)}"
            ) from None

    @property
    def full(self) -> ExecutionPath:
        """The path with every decision at its fullest value: the model as published."""
        return self.canonical({})

    @property
    def smallest(self) -> ExecutionPath:
        """The path with every decision at its cheapest value."""
        return self.canonical({d.name: d.values[0] for d in self.decisions})

    @cached_property
    def size(self) -> int:
        """The number of canonical paths (exact, of any magnitude)."""
        children: dict[str, list[Decision]] = {}
        for decision in self.decisions:
            if decision.requires:
                children.setdefault(decision.requires.decision, []).append(decision)

        def count(decision: Decision) -> int:
            total = 0
            for value in decision.distinct:
                product = 1
                for child in children.get(decision.name, []):
                    assert child.requires
                    product *= count(child) if value in child.requires.values else 1
                total += product
            return total

        size = 1
        for decision in self.decisions:
            size *= 1 if decision.requires else count(decision)
        return size

    def canonical(self, choices: Mapping[str, Value]) -> ExecutionPath:
        """The path that ``choices`` describe.

        Decisions that are not named take their fullest value; those that do not matter are dropped.

        Raises:
            InvalidPathError: a name that is no decision, or a value that its decision does not
                have.
        """
        for name, value in choices.items():
            self[name].index(value)
        path: dict[str, Value] = {}
        for decision in self.decisions:
            if decision.requires is None or decision.requires.holds(path):
                index = decision.index(choices.get(decision.name, decision.values[-1]))
                value = decision.values[index]  # the space's own object: True, not 1
                path[decision.name] = decision.aliases.get(value, value)
        return ExecutionPath(path)

    def parse(self, content: Mapping[str, Any]) -> ExecutionPath:
        """The path that a file's content describes: an object of decisions, as :meth:`canonical`
        takes it.

        A family may know more formats, such as published configurations.

        Raises:
            InvalidPathError: no path of the space.
        """
        return self.canonical(content)

    def restricted(self, allowed: Mapping[str, Sequence[Value]]) -> Self:
        """A copy in which some decisions take some of their values alone; one value settles it.

        All its paths are paths of this space, and models that this space built run them.

        Args:
            allowed: by decision, the values that stay; the other decisions keep all of theirs.

        Raises:
            InvalidPathError: a name that is no decision, or a value that its decision does not
                have.
            InvalidValueError: no value for a decision.
        """
        kept = {name: self[name].restricted(values) for name, values in allowed.items()}
        space = copy.copy(self)
        space.__dict__.pop("size", None)  # of all paths; counted anew
        space.decisions = tuple(kept.get(d.name, d) for d in self.decisions)
        space.whole = self.whole
        return space

    def encode(self, paths: Iterable[Mapping[str, Value]]) -> IndexMatrix:
        """Paths as value indices, (n_paths, n_decisions), :data:`ABSENT` where a decision does not
        matter.
        """
        rows = [
            [d.index(path[d.name]) if d.name in path else ABSENT for d in self.decisions]
            for path in paths
        ]
        return np.array(rows, dtype=np.int16).reshape(len(rows), len(self.decisions))

    def decode(self, matrix: npt.ArrayLike) -> list[ExecutionPath]:
        """The paths of an index matrix: the inverse of :meth:`encode`."""
        return [
            ExecutionPath(
                {
                    d.name: d.values[index]
                    for d, index in zip(self.decisions, row, strict=True)
                    if index != ABSENT
                }
            )
            for row in np.asarray(matrix).tolist()
        ]

    def canonical_encoded(self, matrix: npt.ArrayLike) -> IndexMatrix:
        """A copy of an index matrix with aliases replaced and what does not matter set to ABSENT.

        A decision that matters but is ABSENT in the input takes its fullest value. Vectorised over
        paths.
        """
        out = np.array(matrix, dtype=np.int16, ndmin=2)
        for i, decision in enumerate(self.decisions):
            column = out[:, i]
            column[column == ABSENT] = len(decision.values) - 1
            for alias, target in decision.aliases.items():
                column[column == decision.index(alias)] = decision.index(target)
            if decision.requires:
                column[~self.holds_encoded(decision.requires, out)] = ABSENT
        return out

    def holds_encoded(self, condition: Condition, matrix: IndexMatrix) -> npt.NDArray[np.bool_]:
        """For each row of a canonical matrix, whether the condition holds."""
        decision = self[condition.decision]
        # a restricted space may lack some of a condition's values
        legal = [decision.index(value) for value in condition.values if value in decision.values]
        mask: npt.NDArray[np.bool_] = np.isin(matrix[:, self.positions[condition.decision]], legal)
        return mask

    def sample_encoded(self, rng: np.random.Generator, count: int) -> IndexMatrix:
        """``count`` random canonical rows: each decision uniform over its distinct values."""
        columns = []
        for decision in self.decisions:
            choices = [decision.index(value) for value in decision.distinct]
            columns.append(rng.choice(choices, size=count))
        return self.canonical_encoded(np.stack(columns, axis=1))

    def sample(self, rng: np.random.Generator) -> ExecutionPath:
        """A random path: each decision uniform over its distinct values."""
        return self.decode(self.sample_encoded(rng, 1))[0]


def match_values(
    space: SearchSpace, wanted: Mapping[str, Sequence[Value]]
) -> dict[str, tuple[Value, ...]]:
    """What :meth:`SearchSpace.restricted` takes, from patterns.

    Args:
        space: whose decisions.
        wanted: by name of a decision, or a pattern of names (``stages.*.run``), the values that
            stay. Later entries count where several match. ``full`` and ``smallest`` stand for the
            ends of each decision's values, unless it has a value of that name.

    Raises:
        InvalidPathError: a name or pattern that matches no decision, or a value that a matching
            decision does not have.
    """
    allowed: dict[str, tuple[Value, ...]] = {}
    for pattern, values in wanted.items():
        names = fnmatch.filter(space.positions, pattern)
        if not names:
            raise InvalidPathError(
                f"no decision matches {pattern!r}; {nearest(pattern, space.positions)}"
            )
        for name in names:
            decision = space[name]
            ends: dict[Value, Value] = {"smallest": decision.values[0], "full": decision.values[-1]}
            allowed[name] = tuple(
                value if value in decision.values else ends.get(value, value) for value in values
            )
    return allowed
