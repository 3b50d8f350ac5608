"""Which policies keep what they promise on images that they were not chosen by.

Of very many policies that are compared on the same images, the best one is best in part by chance.
What is left of it elsewhere is measured by cross-validation: a policy is chosen on all folds but
one, and looked at on that one.
"""

from dataclasses import dataclass

import numpy as np

from paretopath.policies.leaving import Floats, Ints, loss_of


@dataclass(frozen=True)
class Kept:
    """Policies that no other beats, by rising cost.

    Attributes:
        rows: (kept,) which they are.
        promised_loss: (kept,) the loss that is not exceeded on other images, within a standard
            error: that on these images or the cross-validated one, with its standard error,
            whichever is larger.
    """

    rows: Ints
    promised_loss: Floats


def worth_keeping(
    lost: Ints, won: Ints, images: Ints, cost: Floats, kinds: Ints, *, most: int
) -> Kept:
    """The policies that none of their kind beats in cost and in loss with its standard error, nor
    any in cost and in promise.

    Each is the choice of a rule: the cheapest of a kind whose loss, with its standard error, is at
    most so much. What the same rule chooses on all folds but one is looked at on that one. Kinds
    are chosen from apart, because a promise pays for how many it was chosen among: of paths that
    nobody leaves early there are few, of policies very many.

    Args:
        lost, won: (policies, folds) see :class:`~paretopath.policies.leaving.Left`.
        images: (folds,).
        cost: (policies,) by which they are compared.
        kinds: (policies,) a number for each kind.
        most: of very many, those at about equal distances in cost, both ends included.
    """
    found = []
    for kind in np.unique(kinds):
        mine = np.flatnonzero(kinds == kind)
        kept = _worth_keeping(lost[mine], won[mine], images, cost[mine], most)
        found.append((mine[kept.rows], kept.promised_loss))
    if not found:
        return Kept(np.zeros(0, dtype=np.int64), np.zeros(0))
    rows, promised = map(np.concatenate, zip(*found, strict=True))
    costs, one = cost[rows], np.newaxis
    beats = (costs <= costs[:, one]) & (promised <= promised[:, one])
    beats &= (costs < costs[:, one]) | (promised < promised[:, one])
    beats &= kinds[rows] != kinds[rows][:, one]
    rows, promised = rows[~beats.any(axis=1)], promised[~beats.any(axis=1)]
    order = np.argsort(cost[rows], kind="stable")
    chosen = order[_spread(cost[rows][order], most)]
    return Kept(rows[chosen], promised[chosen])


def _worth_keeping(lost: Ints, won: Ints, images: Ints, cost: Floats, most: int) -> Kept:
    """Those of one kind."""
    order = np.argsort(cost, kind="stable")
    bounds = _bound(lost.sum(axis=1), won.sum(axis=1), int(images.sum()))[order]
    steps = np.flatnonzero(np.diff(np.minimum.accumulate(bounds), prepend=np.inf) < 0)
    steps = steps[_spread(cost[order[steps]], most)]
    unseen_lost, unseen_won = np.zeros((2, len(steps)), dtype=np.int64)
    for fold in range(len(images)):
        rest = np.delete(np.arange(len(images)), fold)
        seen = _bound(lost[:, rest].sum(axis=1), won[:, rest].sum(axis=1), int(images[rest].sum()))
        chosen = order[_cheapest(seen[order], bounds[steps])]
        unseen_lost += lost[chosen, fold]
        unseen_won += won[chosen, fold]
    validated = _bound(unseen_lost, unseen_won, int(images.sum()))
    promised = np.maximum(bounds[steps], validated)
    # what a dearer one can't keep was luck: of many promises the best would be believed else
    return Kept(order[steps], np.maximum.accumulate(promised[::-1])[::-1])


def _spread(cost: Floats, most: int) -> Ints:
    """Which of rising costs to keep: all, or as many as wanted at about equal distances."""
    if len(cost) <= most:
        return np.arange(len(cost))
    wanted = np.linspace(cost[0], cost[-1], most)
    return np.unique(np.abs(cost[:, None] - wanted).argmin(axis=0))


def _bound(lost: Ints, won: Ints, images: int) -> Floats:
    """Losses with their standard errors."""
    loss, error = loss_of(lost, won, images)
    return loss + error


def _cheapest(losses: Floats, bounds: Floats) -> Ints:
    """The first of some losses, in the order of their cost, that is at most each bound; where none
    is, the least.
    """
    falling = np.minimum.accumulate(losses)
    first = np.searchsorted(-falling, -bounds, side="left")
    return np.where(first < len(losses), first, int(losses.argmin()))
