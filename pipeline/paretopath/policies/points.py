"""Policies as points of a front: what one comes to, image by image, on labelled images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from paretopath.costs import CostName
from paretopath.front.dynamic import DynamicPoint, Policy, SplitResult
from paretopath.front.points import known_cost
from paretopath.paths import ExecutionPath
from paretopath.policies.choice import worth_keeping
from paretopath.policies.confidence import Memory, measure_named
from paretopath.policies.costs import ExitCosts
from paretopath.policies.leaving import Bools, Floats, Ints, loss_of
from paretopath.policies.outputs import ExitOutputs
from paretopath.policies.search import Tried
from paretopath.tasks.classification.task import proportion_error

MOST_KEPT = 48
"""Dynamic points of a front: more than budgets tell apart."""


@dataclass(frozen=True)
class PathPolicies:
    """The policies that were tried of one path.

    Attributes:
        path: which.
        weights: that it runs with: ``searched`` or ``shared``.
        outputs: of all its exits on the images by which policies are chosen.
        costs: of its exits.
        tried: the policies.
    """

    path: ExecutionPath
    weights: str
    outputs: ExitOutputs
    costs: ExitCosts
    tried: Tried

    def within(self, budgets: Mapping[CostName, float]) -> "PathPolicies":
        """Those whose expected costs keep to upper bounds."""
        fits = np.ones(len(self.tried), dtype=np.bool_)
        for name, bound in budgets.items():
            fits &= self.costs(self.tried.left, name)[0] <= bound
        return replace(self, tried=self.tried[fits])


def dynamic_points(
    paths: Sequence[PathPolicies],
    full: PathPolicies,
    *,
    cost: CostName,
    budgets: Mapping[CostName, float] | None = None,
    most: int = MOST_KEPT,
) -> list[DynamicPoint]:
    """The policies of some paths together that no other beats, by rising cost; not tested yet.
    Paths that nobody leaves early are chosen among themselves first.

    Args:
        paths: their outputs are of the same images.
        full: one of them, against which losses are: the full path. That nobody leaves it early is
            always among what is returned, since that surely loses nothing.
        cost: that the front trades.
        budgets: upper bounds of expected costs, by name, for all others.
        most: that are kept.
    """
    reference = full.outputs.right[-1]
    paths = [of_path.within(budgets or {}) for of_path in paths]
    tried = [of_path.tried for of_path in paths]
    leaves_early = np.concatenate([one.left.asked.sum(axis=1) > 1 for one in tried])
    kept = worth_keeping(
        np.concatenate([one.left.lost for one in tried]),
        np.concatenate([one.left.won for one in tried]),
        tried[0].left.images,
        np.concatenate([one.cost for one in tried]),
        leaves_early.astype(np.int64),
        most=most,
    )
    starts = np.cumsum([0, *(len(one) for one in tried)])
    points = []
    for row, promised in zip(kept.rows.tolist(), kept.promised_loss.tolist(), strict=True):
        number = int(np.searchsorted(starts, row, side="right")) - 1
        points.append(_point(paths[number], row - int(starts[number]), promised, reference, cost))
    whole = _point(full, 0, 0.0, reference, cost)
    others = [p for p in points if (p.path, p.policy) != (whole.path, whole.policy)]
    return sorted([*others, whole], key=lambda point: known_cost(point, cost))


def _point(
    of_path: PathPolicies, row: int, promised_loss: float, reference: Bools, cost: CostName
) -> DynamicPoint:
    policy = of_path.tried.policy(row)
    return DynamicPoint(
        path=of_path.path,
        weights=of_path.weights,
        policy=policy,
        costs=of_path.costs.row(of_path.tried.left[row : row + 1]),
        promised_loss=promised_loss,
        validation=split_result(policy, of_path.outputs, reference, of_path.costs, cost),
    )


def exits_taken(policy: Policy, outputs: ExitOutputs) -> Ints:
    """(images,) at which of all the exits of a path each image leaves."""
    taken = np.full(len(outputs), len(outputs.exits) - 1)
    waits = np.ones(len(outputs), dtype=np.bool_)
    measure = measure_named(policy.confidence)
    memory: Memory = ()
    early = zip(policy.exits[:-1], policy.thresholds, policy.temperatures, strict=True)
    for name, threshold, temperature in early:
        number = outputs.exits.index(name)
        # an exit that was asked before may have answered for images that are gone: no matter
        confidence, memory = measure(outputs.logits[number] / temperature, memory)
        leaves = waits & (confidence >= threshold).numpy()
        taken[leaves] = number
        waits &= ~leaves
    return taken


def split_result(
    policy: Policy,
    outputs: ExitOutputs,
    reference: Bools,
    costs: ExitCosts,
    cost: CostName,
) -> SplitResult:
    """What a policy comes to on labelled images.

    Args:
        policy: of this path.
        outputs: of all exits of the path.
        reference: (images,) what the full path answers rightly, against which the loss is.
        costs: of the exits.
        cost: that the front trades.
    """
    taken, samples = exits_taken(policy, outputs), len(outputs)
    right = outputs.right[taken, np.arange(samples)]
    numbers = [outputs.exits.index(name) for name in policy.exits]
    there = [taken == number for number in numbers]
    loss, loss_error = loss_of(
        np.array((reference & ~right).sum()), np.array((right & ~reference).sum()), samples
    )
    paid = costs.paid(numbers, cost)[np.searchsorted(numbers, taken)]
    return SplitResult(
        accuracy=float(right.mean()),
        error=proportion_error(int(right.sum()), samples),
        loss=float(loss),
        loss_error=float(loss_error),
        samples=samples,
        shares=tuple(float(mine.mean()) for mine in there),
        right=tuple(float(right[mine].mean()) if mine.any() else None for mine in there),
        cost=float(paid.mean()),
        cost_error=_mean_error(paid),
    )


def _mean_error(values: Floats) -> float:
    return float(values.std() / np.sqrt(len(values)))
