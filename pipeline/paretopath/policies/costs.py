"""What a policy costs: an image that leaves pays for the way there and for each exit it was asked
at.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from paretopath.cost import CostTable
from paretopath.costs import COSTS, CostName, cost_named
from paretopath.elastic.exits import ExitOnTheWay
from paretopath.policies.leaving import Left

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ExitCosts:
    """What it costs to come to each exit of a path, and to ask it.

    Attributes:
        body: by cost, (exits,) of all that runs before the exit, no other exit.
        head: by cost, (exits,) of the exit itself.
    """

    body: Mapping[CostName, Floats]
    head: Mapping[CostName, Floats]

    def __call__(self, left: Left, name: CostName) -> tuple[Floats, Floats]:
        """A cost of policies for one image, and its standard error.

        What is held whoever leaves (parameters) counts for the whole path and the exits that are
        asked; the rest is an expectation: the sum, over exits, of the share that leaves there times
        what it paid.

        Args:
            left: who leaves where.
            name: of the cost.

        Returns:
            (policies,) each.
        """
        cost, body, head = cost_named(name), self.body[name], self.head[name]
        if not cost.is_sum:
            most = np.maximum(body[-1], np.where(left.asked, head, 0.0).max(axis=1))
            return most, np.zeros(len(left))
        asked = np.where(left.asked, head, 0.0)  # (policies, exits)
        if cost.is_held:
            return body[-1] + asked.sum(axis=1), np.zeros(len(left))
        paid = body + np.cumsum(asked, axis=1)
        mean = (left.shares * paid).sum(axis=1)
        variance = (left.shares * (paid - mean[:, None]) ** 2).sum(axis=1)
        return mean, np.sqrt(variance / left.images.sum())

    def row(self, left: Left) -> dict[CostName, float]:
        """All known costs of the first of some policies."""
        return {name: float(self(left[:1], name)[0][0]) for name in self.body}

    def paid(self, asked: Sequence[int], name: CostName) -> Floats:
        """(asked,) what an image pays that leaves at each of the exits that are asked.

        Args:
            asked: which exits, rising.
            name: of a cost that is a sum.
        """
        head = self.head[name][list(asked)]
        return self.body[name][list(asked)] + np.cumsum(head)


def exit_costs(table: CostTable, exits: Sequence[ExitOnTheWay]) -> ExitCosts:
    """The costs of the exits of a path, from the table of its space.

    Args:
        table: prices units.
        exits: of :func:`~paretopath.elastic.exits.exits_on_the_way`.
    """
    ways = [[unit.costs for unit in table.breakdown(found.path)] for found in exits]
    body: dict[CostName, Floats] = {}
    head: dict[CostName, Floats] = {}
    for cost in COSTS:
        before = [cost.combined([unit.get(cost.name) for unit in way[:-1]]) for way in ways]
        last = [way[-1].get(cost.name) for way in ways]
        if None not in before and None not in last:
            body[cost.name] = np.array(before, dtype=np.float64)
            head[cost.name] = np.array(last, dtype=np.float64)
    return ExitCosts(body, head)
