"""Choosing paths of a front: by its knee, by a budget, spread evenly, or by name."""

import numpy as np
import numpy.typing as npt

from paretopath.costs import COSTS, CostName, cost_named
from paretopath.errors import InvalidValueError
from paretopath.front.dynamic import DynamicPoint, within_loss
from paretopath.front.front import Front
from paretopath.front.points import Point, known_cost
from paretopath.quantities import told_apart
from paretopath.recipe.budget import is_amount_of, parse_budget
from paretopath.recipe.selection import parse_selection


def select(front: Front, spec: str) -> list[Point]:
    """The points that a specification names, by rising cost.

    Choices rest on the search's accuracies, never on retrained ones, so that retraining some of a
    selection does not change the selection. The forms:

    - ``knee``: the point furthest above the straight line between the ends of the front, both axes
      scaled to [0, 1] (Das, "On characterizing the 'knee' of the Pareto curve based on
      normal-boundary intersection", Structural Optimization 18, 1999). The cheaper of two equally
      far.
    - ``budget=70%`` of the full path's cost, ``budget=12.5mJ``, ``budget=8ms``: the most accurate
      point that fits. A unit may limit another cost than the front's own.
    - ``activation_bytes=256kB``, ``macs=60%``: the same for any cost by its name.
    - ``count=4``: that many (or all, if there are fewer), both ends included, at about equal
      distances along the front, both axes scaled to [0, 1]. ``count=1`` is the knee.
    - ``all``.
    - ``id=3f2a,9c``: by id or by its beginning, in that order; the full path's id counts too.

    Raises:
        InvalidValueError: another form, a budget that nothing fits, an id that is not there, or an
            empty front.
    """
    asked = parse_selection(spec)
    if asked.kind == "id":
        return [front[identity] for identity in asked.ids]
    if not front.points:
        raise InvalidValueError(f"the front has no points, so {spec!r} selects nothing")
    if asked.kind == "knee":
        return [_knee(front)]
    if asked.kind == "budget":
        return [_within(front, asked.budget, asked.cost)]
    if asked.kind == "count":
        return _spread(front, asked.count)
    return list(front.points)


def policies_within(
    front: Front, max_loss: float | None = None, energy_budget: str | None = None
) -> list[DynamicPoint]:
    """The policies of a front; the one that is asked for, where one is.

    Args:
        front: with policies.
        max_loss: points of accuracy, in [0, 100]: the cheapest that is promised to lose no more.
        energy_budget: ``60%`` of the full path's energy, ``12.5mJ``: the one within it that is
            promised to lose least.

    Raises:
        InvalidValueError: a bound that can't be, or that none keeps to.
    """
    if max_loss is not None:
        if not 0 <= max_loss <= 100:
            raise InvalidValueError(f"--max-loss must lie in [0, 100] points, but got {max_loss}")
        return [within_loss(front.policies, max_loss / 100)]
    if energy_budget is None:
        return list(front.policies)
    limit = parse_budget(energy_budget, "mJ", known_cost(front.full, "energy_mj"))
    fitting = [p for p in front.policies if known_cost(p, "energy_mj") <= limit]
    if not fitting:
        least = min(known_cost(point, "energy_mj") for point in front.policies)
        allowed, needed = told_apart(limit, least, "mJ")
        raise InvalidValueError(
            f"no policy keeps to a budget of {allowed} of energy; the cheapest takes {needed}"
        )
    return [min(fitting, key=lambda point: point.promised_loss)]


def _scaled(front: Front) -> npt.NDArray[np.float64]:
    """(cost, accuracy) of the points, each scaled to [0, 1]; shape (n, 2)."""
    points = np.array([[front.cost_of(point), point.accuracy] for point in front.points])
    low, high = points.min(axis=0), points.max(axis=0)
    scaled: npt.NDArray[np.float64] = (points - low) / np.where(high > low, high - low, 1.0)
    return scaled


def _knee(front: Front) -> Point:
    cost, accuracy = _scaled(front).T
    # scaled, the ends are (0, 0) and (1, 1): a point's distance to their line is (y - x) / sqrt(2).
    # Rounded, so that equal distances tie whatever the order of the arithmetic.
    return front.points[int(np.argmax(np.round(accuracy - cost, 12)))]


def _within(front: Front, budget: str, cost: CostName | None) -> Point:
    cost = cost or _limited(front, budget)
    named, unit = cost_named(cost), cost_named(cost).unit
    limit = parse_budget(budget, unit, known_cost(front.full, cost))
    fitting = [point for point in front.points if known_cost(point, cost) <= limit]
    if not fitting:
        cheapest = min(front.points, key=lambda point: known_cost(point, cost))
        allowed, least = told_apart(limit, known_cost(cheapest, cost), unit)
        raise InvalidValueError(
            f"no path of the front fits a budget of {named.phrase(allowed)}; the "
            f"cheapest, {cheapest.id}, takes {least}"
        )
    return max(fitting, key=lambda point: point.accuracy)


def _limited(front: Front, budget: str) -> CostName:
    """The cost that a budget is for: the front's own, unless its unit is that of one other."""
    if is_amount_of(budget, cost_named(front.cost).unit) or budget.endswith("%"):
        return front.cost
    found = [cost.name for cost in COSTS if is_amount_of(budget, cost.unit)]
    if len(found) > 1:
        raise InvalidValueError(
            f"a budget of {budget!r} could limit any of {', '.join(found)}, and the front is of "
            f"{front.cost}; name one, such as {found[-1]}={budget}"
        )
    return found[0] if found else front.cost


def _spread(front: Front, count: int) -> list[Point]:
    total = len(front.points)
    if count >= total:
        return list(front.points)
    if count == 1:
        return [_knee(front)]
    steps = np.linalg.norm(np.diff(_scaled(front), axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(steps)])  # (n,): distance from the cheap end
    chosen: list[int] = []
    for rank, target in enumerate(np.linspace(0, along[-1], count)):
        first = chosen[-1] + 1 if chosen else 0
        last = total - (count - rank)  # leaves one point for each target still to come
        chosen.append(first + int(np.argmin(np.abs(along[first : last + 1] - target))))
    return [front.points[i] for i in chosen]
