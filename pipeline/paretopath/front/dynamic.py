"""A dynamic point: a path, when its images leave, and what that comes to."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from paretopath.costs import COST_NAMES, CostName, known_costs
from paretopath.errors import InvalidValueError
from paretopath.front.points import PathField


@dataclass(frozen=True)
class Policy:
    """When images leave a path.

    Attributes:
        confidence: how sure an exit is; a name of
            :data:`~paretopath.policies.confidence.MEASURES`.
        exits: names of the exits that are asked, in order; the last is the path's own, where all
            that are left leave.
        thresholds: for each exit but the last, the confidence at which an image leaves.
        temperatures: for each exit but the last, what its logits are divided by, over 0.

    Raises:
        InvalidValueError: not as many thresholds or temperatures as there are exits but the last,
            or one that can't be.
    """

    confidence: str
    exits: tuple[str, ...]
    thresholds: tuple[float, ...]
    temperatures: tuple[float, ...]

    def __post_init__(self) -> None:
        early = len(self.exits) - 1
        if early < 0 or len(set(self.exits)) <= early:
            raise InvalidValueError(f"exits must be distinct, at least one, but got {self.exits}")
        for name in ("thresholds", "temperatures"):
            values = getattr(self, name)
            if len(values) != early or not all(map(math.isfinite, values)):
                raise InvalidValueError(
                    f"{name} must be {early} finite numbers, one for each exit but the last, "
                    f"but got {values}"
                )
        if any(t <= 0 for t in self.temperatures):
            raise InvalidValueError(f"temperatures must be over 0, but got {self.temperatures}")


@dataclass(frozen=True)
class SplitResult:
    """What a policy came to on one split.

    Attributes:
        accuracy: in [0, 1].
        error: its standard error.
        loss: accuracy less than the full path's on the same images, in [-1, 1].
        loss_error: its standard error, which is paired.
        samples: how many images.
        shares: of the images that leave at each exit of the policy, in order; they sum to 1.
        right: accuracy at each exit, of those that leave there; None where nobody does.
        cost: in the unit of the front's cost, for one image, expected.
        cost_error: its standard error.

    Raises:
        InvalidValueError: a number is not finite.
    """

    accuracy: float
    error: float
    loss: float
    loss_error: float
    samples: int
    shares: tuple[float, ...]
    right: tuple[float | None, ...]
    cost: float
    cost_error: float

    def __post_init__(self) -> None:
        for spec in fields(self):
            value = getattr(self, spec.name)
            numbers = value if isinstance(value, tuple) else (value,)
            if not all(number is None or math.isfinite(number) for number in numbers):
                raise InvalidValueError(f"{spec.name} must be finite, but got {value}")


@dataclass(frozen=True)
class DynamicPoint:
    """A path with a policy: a point of the front whose cost is an expectation.

    Attributes:
        path: its decisions.
        weights: that it runs with: ``searched`` or ``shared``.
        policy: when its images leave.
        costs: those of :data:`~paretopath.costs.COSTS` that are known, for one image, expected on
            validation.
        promised_loss: of accuracy against the full path's, which is not exceeded on other images
            within a standard error: what points are chosen by.
        validation: what it came to on the images by which it was chosen.
        test: on images by which nothing was chosen.
    """

    path: PathField
    weights: str
    policy: Policy
    costs: Mapping[CostName, float] = field(hash=False)
    promised_loss: float
    validation: SplitResult
    test: SplitResult | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.promised_loss):
            raise InvalidValueError(f"promised_loss must be finite, but got {self.promised_loss}")
        for name, value in self.costs.items():
            if name not in COST_NAMES or not math.isfinite(value):
                raise InvalidValueError(f"{name} must be a finite cost, but got {value}")
        for split in (self.validation, self.test):
            if split is not None and len(split.shares) != len(self.policy.exits):
                raise InvalidValueError(
                    f"shares must be {len(self.policy.exits)}, one for each exit, but got "
                    f"{split.shares}"
                )
        object.__setattr__(self, "costs", known_costs(self.costs))

    @property
    def id(self) -> str:
        """Its name on the command line: the path's id, and what tells its policy from others."""
        told = json.dumps([self.weights, asdict(self.policy)])
        return f"{self.path.id}-{hashlib.sha256(told.encode()).hexdigest()[:6]}"

    def cost(self, name: CostName) -> float | None:
        """One of its costs, None where it is unknown."""
        return self.costs.get(name)


def within_loss(points: Sequence[DynamicPoint], max_loss: float) -> DynamicPoint:
    """The cheapest dynamic point that is promised to lose no more than is allowed.

    Args:
        points: of one front, by rising cost: that nobody leaves the full path early, which loses
            nothing, is among them.
        max_loss: accuracy, in [0, 1].

    Raises:
        InvalidValueError: no such share, or points without that one.
    """
    if not 0 <= max_loss <= 1:
        raise InvalidValueError(f"max_loss must lie in [0, 1], but got {max_loss}")
    for point in points:
        if point.promised_loss <= max_loss:
            return point
    raise InvalidValueError(f"none of {len(points)} policies loses at most {max_loss}")


def dynamic_record(point: DynamicPoint) -> dict[str, Any]:
    """A dynamic point as machines read it: flat, validation's figures under their plain names."""
    validation, test = point.validation, point.test
    return {
        "id": point.id,
        "path_id": point.path.id,
        "path": dict(point.path),
        "weights": point.weights,
        "confidence": point.policy.confidence,
        "exits": list(point.policy.exits),
        "thresholds": list(point.policy.thresholds),
        "temperatures": list(point.policy.temperatures),
        "accuracy": validation.accuracy,
        "accuracy_error": validation.error,
        "samples": validation.samples,
        "promised_loss": point.promised_loss,
        "loss": validation.loss,
        "loss_error": validation.loss_error,
        "shares": list(validation.shares),
        "exit_accuracies": list(validation.right),
        "cost_error": validation.cost_error,
        **{name: point.cost(name) for name in COST_NAMES},
        "test_accuracy": test.accuracy if test else None,
        "test_error": test.error if test else None,
        "test_loss": test.loss if test else None,
        "test_loss_error": test.loss_error if test else None,
        "test_shares": list(test.shares) if test else None,
        "test_exit_accuracies": list(test.right) if test else None,
        "test_cost": test.cost if test else None,
        "test_cost_error": test.cost_error if test else None,
    }
