"""Choosing paths of a front: by its knee, by a budget, spread evenly, or by name."""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import InvalidValueError, nearest
from pipeline.front.front import Front
from pipeline.front.points import CostName, Point, known_cost

_UNITS: dict[str, tuple[CostName, float]] = {
    "J": ("energy_mj", 1e3),
    "mJ": ("energy_mj", 1.0),
    "uJ": ("energy_mj", 1e-3),
    "µJ": ("energy_mj", 1e-3),
    "s": ("latency_ms", 1e3),
    "ms": ("latency_ms", 1.0),
    "us": ("latency_ms", 1e-3),
    "µs": ("latency_ms", 1e-3),
    "MMACs": ("macs", 1e6),
    "GMACs": ("macs", 1e9),
}
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)\s*([^\s\d]*)\s*")
_FORMS = ("knee", "all", "budget=70%", "budget=12.5mJ", "count=4", "id=…")


@dataclass(frozen=True)
class Budget:
    """An upper limit on one cost of a path.

    Attributes:
        cost: the cost that it limits.
        amount: above 0: in the unit of the cost (mJ, ms, …), or a share of the full path's.
        relative: whether ``amount`` is a share.
    """

    cost: CostName
    amount: float
    relative: bool

    @classmethod
    def parse(cls, text: str, *, cost: CostName = "energy_mj") -> "Budget":
        """Reads ``70%``, ``12.5mJ``, ``8ms`` or ``2.4GMACs``.

        Args:
            text: a number and a unit.
            cost: what a percentage is a percentage of.

        Raises:
            InvalidValueError: the text is neither.
        """
        legal = ["%", *_UNITS]
        match = _AMOUNT.fullmatch(text)
        if not match:
            raise InvalidValueError(
                f"a budget must be a number and a unit, such as 70% or 12.5mJ, but got {text!r}; "
                f"units: {', '.join(legal)}"
            )
        number, unit = float(match[1]), match[2]
        if not 0 < number < float("inf"):
            raise InvalidValueError(f"a budget must be above 0 and finite, but got {text!r}")
        if unit == "%":
            return cls(cost, number / 100, relative=True)
        if unit not in _UNITS:
            meant = next((known for known in legal if known.lower() == unit.lower()), unit)
            raise InvalidValueError(f"budget {text!r} must have a unit; {nearest(meant, legal)}")
        limited, factor = _UNITS[unit]
        return cls(limited, number * factor, relative=False)

    def limit(self, full: float) -> float:
        """The limit in the cost's own unit, where the full path costs ``full``."""
        return self.amount * full if self.relative else self.amount


def select(front: Front, spec: str) -> list[Point]:
    """The points that a specification names, by rising cost.

    Choices rest on the search's accuracies, never on retrained ones, so that retraining some of a
    selection does not change the selection. The forms:

    - ``knee``: the point furthest above the straight line between the ends of the front, both axes
      scaled to [0, 1] (Das, "On characterizing the 'knee' of the Pareto curve based on
      normal-boundary intersection", Structural Optimization 18, 1999). The cheaper of two equally
      far.
    - ``budget=70%`` of the full path's cost, ``budget=12.5mJ``, ``8ms``, ``2.4GMACs``: the most
      accurate point that fits. A unit may limit another cost than the front's own.
    - ``count=4``: that many (or all, if there are fewer), both ends included, at about equal
      distances along the front, both axes scaled to [0, 1]. ``count=1`` is the knee.
    - ``all``.
    - ``id=3f2a,9c``: by id or by its beginning, in that order; the full path's id counts too.

    Raises:
        InvalidValueError: another form, a budget that nothing fits, an id that is not there, or an
            empty front.
    """
    kind, _, argument = (part.strip() for part in spec.partition("="))
    if kind in ("knee", "all", "budget", "count") and not front.points:
        raise InvalidValueError(f"the front has no points, so {spec!r} selects nothing")
    if spec.strip() == "all":
        return list(front.points)
    if spec.strip() == "knee":
        return [_knee(front)]
    if kind == "budget":
        return [_within(front, Budget.parse(argument, cost=front.cost))]
    if kind == "count":
        return _spread(front, _positive_integer(spec, argument))
    if kind == "id" and argument:
        return [front[identity.strip()] for identity in argument.split(",")]
    raise InvalidValueError(f"a selection can't be {spec!r}; {nearest(spec, _FORMS)}")


def _positive_integer(spec: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise InvalidValueError(f"count=N needs a whole number from 1 up, but got {spec!r}")
    return int(text)


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


def _within(front: Front, budget: Budget) -> Point:
    limit = budget.limit(known_cost(front.full, budget.cost))
    fitting = [point for point in front.points if known_cost(point, budget.cost) <= limit]
    if not fitting:
        cheapest = min(front.points, key=lambda point: known_cost(point, budget.cost))
        raise InvalidValueError(
            f"no path of the front fits a budget of {limit:.6g} ({budget.cost}); the cheapest, "
            f"{cheapest.id}, takes {known_cost(cheapest, budget.cost):.6g}"
        )
    return max(fitting, key=lambda point: point.accuracy)


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
