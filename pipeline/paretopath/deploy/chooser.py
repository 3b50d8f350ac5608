"""A budget picks a path: the most accurate one that keeps to it, over all weights that exist."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from paretopath.costs import COST_NAMES, CostName, cost_named
from paretopath.errors import InvalidValueError, nearest
from paretopath.front import DynamicPoint, Point, known_cost
from paretopath.quantities import told_apart

Budget = Mapping[str, float | None]
"""Upper bounds for one image by the names of costs, in their units; None for no bound."""


@dataclass(frozen=True)
class Option:
    """A path, and weights that it can run with.

    Attributes:
        point: the path and its costs.
        weights: the name of the weights: ``searched``, ``closed_form``, ``shared``.
        accuracy: of the path under these weights, on validation, in [0, 1].
    """

    point: Point
    weights: str
    accuracy: float


@dataclass(frozen=True)
class EarlyOption:
    """A path that images leave early, by a policy.

    Attributes:
        point: the path, its policy and its expected costs.
    """

    point: DynamicPoint

    @property
    def accuracy(self) -> float:
        """Against the full path's: what it does not lose, within a standard error."""
        return -self.point.promised_loss


Chosen = TypeVar("Chosen", bound=Option | EarlyOption)


class Chooser(Generic[Chosen]):
    """Picks options by budgets.

    Args:
        options: at least one.
        cost: by which options are ordered; the first that all of them know if None.

    Attributes:
        options: by rising cost.
        costs: the names of the costs that all options know.

    Raises:
        InvalidValueError: no options, or one whose cost is not known.
    """

    def __init__(self, options: Iterable[Chosen], *, cost: CostName | None = None) -> None:
        found = list(options)
        if not found:
            raise InvalidValueError("a dynamic model needs at least one path to pick from")
        self.costs = _known(found)
        self.cost = cost or self.costs[0]
        self.options = tuple(sorted(found, key=lambda o: known_cost(o.point, self.cost)))

    def __call__(self, budget: Budget) -> Chosen:
        """The most accurate option whose costs keep to a budget; the cheaper one of equals.

        Raises:
            InvalidValueError: nothing is that cheap, or the budget is about a cost that is not
                known, or no number over 0.
        """
        bounds = {
            self._cost(name): _positive(name, bound)
            for name, bound in budget.items()
            if bound is not None
        }
        fitting = [
            option
            for option in self.options
            if all(known_cost(option.point, name) <= bound for name, bound in bounds.items())
        ]
        if not fitting:
            raise InvalidValueError(self._nothing_fits(bounds))
        return max(fitting, key=lambda o: (o.accuracy, -known_cost(o.point, self.cost)))

    def _cost(self, name: str) -> CostName:
        for known in self.costs:
            if name == known:
                return known
        raise InvalidValueError(
            f"a budget must be about a cost of this front, but got {name!r}; "
            f"{nearest(name, self.costs)}"
        )

    def _nothing_fits(self, bounds: Mapping[CostName, float]) -> str:
        wants: list[str] = []
        needs: list[str] = []
        for name, bound in bounds.items():
            cost = cost_named(name)
            least = min(known_cost(option.point, name) for option in self.options)
            allowed, needed = told_apart(bound, least, cost.unit)
            wants.append(cost.phrase(allowed))
            needs.append(cost.phrase(needed))
        each = "the least that any needs is" if len(bounds) == 1 else "the least of each is"
        return f"no path keeps to a budget of {' and '.join(wants)}; {each} {' and '.join(needs)}"


def _known(options: Sequence[Option | EarlyOption]) -> tuple[CostName, ...]:
    return tuple(
        name
        for name in COST_NAMES
        if all(option.point.cost(name) is not None for option in options)
    )


def worth_having(options: Sequence[Option]) -> list[Option]:
    """The options that some budget picks: no other has more accuracy for no more of any cost.

    Of equals the first stays.
    """
    costs = _known(options)
    rows = [[known_cost(option.point, name) for name in costs] for option in options]

    def beaten(i: int) -> bool:
        return any(
            options[j].accuracy >= options[i].accuracy
            and all(a <= b for a, b in zip(rows[j], rows[i], strict=True))
            and (j < i or options[j].accuracy > options[i].accuracy or rows[j] != rows[i])
            for j in range(len(options))
            if j != i
        )

    return [option for i, option in enumerate(options) if not beaten(i)]


def _positive(name: str, bound: float) -> float:
    if isinstance(bound, bool) or not isinstance(bound, int | float) or not bound > 0:
        raise InvalidValueError(f"a budget must be a number over 0, but got {name}={bound!r}")
    return float(bound)
