"""Policies as decisions: a space whose paths also say what share of their images leaves at each
exit.

A policy by shares (the budgeted batch classification of Huang et al., "Multi-Scale Dense Networks",
arXiv 1703.09844, section 5, with a share for each exit) has an expected cost before any image is
run: what the exits of a path cost is known, and so is how many images pay it. So a path with its
policy is a path like any other, in any search: exact, free costs, an accuracy to be measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from paretopath.cost.table import CostTable, PathCosts
from paretopath.costs import COSTS
from paretopath.elastic import ElasticSpace, Unit
from paretopath.elastic.exits import exits_on_the_way
from paretopath.elastic.units import Chain
from paretopath.errors import InvalidValueError
from paretopath.paths import (
    ABSENT,
    Condition,
    Decision,
    ExecutionPath,
    IndexMatrix,
    SearchSpace,
    Value,
)
from paretopath.tracing import build_on_meta

Floats = npt.NDArray[np.float64]

SHARES = (0.9, 0.75, 0.6, 0.45, 0.3, 0.15, 0.0)
"""Of the images that come to an exit, those that may leave there; 0: it is not asked."""


@dataclass(frozen=True)
class PassedExit:
    """An exit that a path may pass.

    Attributes:
        name: of the unit.
        ends: the decision with whose value a path ends there.
        value: that value.
    """

    name: str
    ends: str
    value: Value

    @property
    def share(self) -> str:
        """The name of the decision how large a share of those that come leaves here."""
        return f"{self.name}.share"


@dataclass(frozen=True)
class WaysOut:
    """A path with its policy, taken apart: the ways on which its images go, or might.

    Attributes:
        ways: for each exit on it the path that ends there, in order; the last is the whole.
        decisions: for each way but the last, that of the share that leaves there.
        shares: for each way but the last, of the images that come to its exit, those that leave;
            0: it is not asked.
    """

    ways: tuple[ExecutionPath, ...]
    decisions: tuple[str, ...]
    shares: tuple[float, ...]


class LeavingSpace(SearchSpace):
    """The paths of another space, each with a share of images that leaves at each exit on its way.

    Args:
        space: whose.

    Attributes:
        static: that space.
        exits: those at which images may leave early, in the order in which paths pass them.

    Raises:
        InvalidValueError: its paths pass no exits.
    """

    def __init__(self, space: ElasticSpace) -> None:
        self.static = space
        found = [(unit, _passing(unit, space)) for unit in build_on_meta(space).chain]
        passed = [(unit, later) for unit, later in found if later is not None]
        if not passed:
            raise InvalidValueError(
                f"policies can be searched where paths pass exits before their last, but those of "
                f"{type(space).__name__} pass none"
            )
        self.exits = tuple(_early(unit, space) for unit, _ in passed)
        shares = [
            Decision(exit_.share, SHARES, later)
            for exit_, (_, later) in zip(self.exits, passed, strict=True)
        ]
        super().__init__([*space.decisions, *shares])
        self.told = frozenset(decision.name for decision in shares)

    def without(self, path: Mapping[str, Value]) -> ExecutionPath:
        """A path of this space as a path of the other, which nobody leaves early."""
        return ExecutionPath({n: v for n, v in path.items() if n in self.static.positions})

    def shares_of(self, path: Mapping[str, Value]) -> tuple[float, ...]:
        """For each exit on the way of a canonical path, the share of images that leaves there."""
        return tuple(float(path[e.share]) for e in self.exits if e.share in path)

    def apart(self, path: Mapping[str, Value], model: Chain) -> WaysOut:
        """What a canonical path with its policy consists of.

        Args:
            path: of this space.
            model: with the exits.
        """
        whole = self.without(path)
        there = {way.step.unit.name: way.path for way in exits_on_the_way(model, whole)}
        passed = [e for e in self.exits if e.share in path and e.name in there]
        return WaysOut(
            (*(there[exit_.name] for exit_ in passed), whole),
            tuple(exit_.share for exit_ in passed),
            tuple(float(path[exit_.share]) for exit_ in passed),
        )

    def shares_encoded(self, exit_: PassedExit, matrix: IndexMatrix) -> Floats:
        """(n_paths,) of the images that come to an exit those that leave there; 0 where it is not
        on the way.
        """
        index = matrix[:, self.positions[exit_.share]]
        return np.where(index == ABSENT, 0.0, np.array(SHARES)[index])

    def ended_encoded(self, exit_: PassedExit, matrix: IndexMatrix) -> IndexMatrix:
        """The paths of the other space that end at an exit, for canonical rows that pass it."""
        ended = matrix[:, : len(self.static.decisions)].copy()
        decision = self.static[exit_.ends]
        ended[:, self.static.positions[exit_.ends]] = decision.index(exit_.value)
        return self.static.canonical_encoded(ended)


class LeavingCosts:
    """What paths cost whose images leave early: expected costs, exact as those of single paths.

    An image pays for the way to its exit and for each exit that it was asked at; what is held
    whoever leaves (parameters) counts for the whole path and all exits that are asked.

    Args:
        space: of the paths.
        table: the costs of the space without policies.
    """

    def __init__(self, space: LeavingSpace, table: CostTable) -> None:
        self.space = space
        self.table = table

    def encoded(self, matrix: IndexMatrix) -> PathCosts:
        """The costs of a canonical index matrix (n_paths, n_decisions), vectorised over paths."""
        whole = self.table.encoded(matrix[:, : len(self.space.static.decisions)]).table
        paid, asked = np.zeros_like(whole), np.zeros_like(whole)  # asked: at all exits so far
        most, comes = whole.copy(), np.ones(len(matrix))
        for exit_ in self.space.exits:
            shares = self.space.shares_encoded(exit_, matrix)
            rows = np.flatnonzero(shares)
            ended = self.space.ended_encoded(exit_, matrix[rows])
            there, head = self.table.encoded(ended).table, self.table.ends(ended).table
            paid[rows] += (comes * shares)[rows, None] * (there + asked[rows])
            asked[rows] += head
            most[rows] = np.maximum(most[rows], there)
            comes *= 1 - shares
        paid += comes[:, None] * (whole + asked)
        is_sum = np.array([cost.is_sum for cost in COSTS])
        is_held = np.array([cost.is_held for cost in COSTS])
        costs = np.where(is_sum, np.where(is_held, whole + asked, paid), most)
        return PathCosts(costs)


def leave_by_shares(
    confidences: Sequence[npt.NDArray[np.floating]], shares: Sequence[float]
) -> npt.NDArray[np.int64]:
    """At which exit each image leaves, if a share of those that come to an exit does: the surest.

    Args:
        confidences: for each exit but the last, (images,).
        shares: for each exit but the last.

    Returns:
        (images,) numbers of exits; the last is ``len(shares)``.
    """
    images = len(confidences[0]) if len(confidences) else 0
    taken = np.full(images, len(shares))
    waiting = np.arange(images)
    for number, (confidence, share) in enumerate(zip(confidences, shares, strict=True)):
        count = round(share * len(waiting))
        order = np.argsort(-confidence[waiting], kind="stable")
        taken[waiting[order[:count]]] = number
        waiting = np.sort(waiting[order[count:]])
    return taken


def _passing(unit: Unit, space: ElasticSpace) -> Condition | None:
    """Where a unit is an exit on the way of paths that end later; None if it is never one."""
    if not unit.is_exit or unit.requires is None:
        return None
    decision = space[unit.requires.decision]
    own = [value for value in unit.requires.values if value in decision.values]
    if not own:
        return None
    last = max(decision.index(value) for value in own)
    later = tuple(v for v in decision.distinct if decision.index(v) > last)
    return Condition(decision.name, later) if later else None


def _early(unit: Unit, space: ElasticSpace) -> PassedExit:
    assert unit.requires is not None
    decision = space[unit.requires.decision]
    value = max((v for v in unit.requires.values if v in decision.values), key=decision.index)
    return PassedExit(unit.name, decision.name, value)
