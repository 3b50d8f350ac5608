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


def worth_keeping(lost: Ints, won: Ints, images: Ints, cost: Floats, *, most: int) -> Kept:
    """The policies that no other beats in cost and in loss with its standard error.

    Each is the choice of a rule: the cheapest whose loss, with its standard error, is at most so
    much. What the same rule chooses on all folds but one is looked at on that one.

    Args:
        lost, won: (policies, folds) see :class:`~paretopath.policies.leaving.Left`.
        images: (folds,).
        cost: (policies,) by which they are compared.
        most: of very many, those at about equal distances in cost, both ends included.
    """
    if len(cost) == 0:
        return Kept(np.zeros(0, dtype=np.int64), np.zeros(0))
    order = np.argsort(cost, kind="stable")
    bounds = _bound(lost.sum(axis=1), won.sum(axis=1), int(images.sum()))[order]
    steps = np.flatnonzero(np.diff(np.minimum.accumulate(bounds), prepend=np.inf) < 0)
    if len(steps) > most:
        along = cost[order[steps]]
        wanted = np.linspace(along[0], along[-1], most)
        steps = steps[np.unique(np.abs(along[:, None] - wanted).argmin(axis=0))]
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
