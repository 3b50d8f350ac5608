"""What is known about a path: as a trial of a search, as a point of a front, after retraining."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol

from pydantic import PlainSerializer, PlainValidator

from paretopath.costs import COST_NAMES, COSTS, CostName, cost_named, known_costs
from paretopath.errors import InvalidValueError, nearest
from paretopath.paths import ExecutionPath, Value

Outcome = Literal["complete", "stopped", "failed"]
"""How a trial ended."""


def _read_path(choices: object) -> ExecutionPath:
    if isinstance(choices, ExecutionPath):
        return choices
    if not isinstance(choices, dict) or not all(
        isinstance(value, bool | int | float | str) for value in choices.values()
    ):
        raise ValueError("a path must map decisions to booleans, numbers or strings")
    return ExecutionPath(choices)


# how pydantic, which checks front.json, reads a path and writes it back
PathField = Annotated[
    ExecutionPath, PlainValidator(_read_path), PlainSerializer(dict, return_type=dict[str, Value])
]


@dataclass(frozen=True)
class TrialRecord:
    """One trial of a search, as reports and W&B show it.

    Attributes:
        number: the trial's number in the study, from 0.
        state: ``complete``; ``stopped`` early, with the accuracy that it had by then; ``failed``.
        path: its path.
        accuracy: in [0, 1]; None if none was measured.
        accuracy_error: its standard error.
        samples: how many images the accuracy rests on.
        costs: those of :data:`~paretopath.costs.COSTS` that are known, for one image.
        failure: why it failed; None where it did not.

    Raises:
        InvalidValueError: a number is not finite, or a name is no cost.
    """

    number: int
    state: Outcome
    path: ExecutionPath
    accuracy: float | None
    accuracy_error: float | None
    samples: int
    costs: Mapping[CostName, float]
    failure: str | None = None

    def __post_init__(self) -> None:
        _require_finite(self)
        for name, value in self.costs.items():
            cost_named(name)
            if not math.isfinite(value):
                raise InvalidValueError(
                    f"{name} of trial {self.number} must be finite, not {value}"
                )


@dataclass(frozen=True)
class Retrained:
    """What one mode of retraining made of a path.

    Attributes:
        accuracy: on validation, in [0, 1].
        error: its standard error.
        test_accuracy: the same on the test split; None until it is evaluated.
        test_error: its standard error.

    Raises:
        InvalidValueError: a number is not finite.
    """

    accuracy: float
    error: float
    test_accuracy: float | None = None
    test_error: float | None = None

    def __post_init__(self) -> None:
        _require_finite(self)


@dataclass(frozen=True)
class Point:
    """A path of a front and everything measured about it.

    Attributes:
        path: its decisions.
        number: the trial that found it, from 0.
        accuracy: what the search chose by, in [0, 1], before any retraining.
        accuracy_error: its standard error; 0 for a prediction.
        samples: how many images the accuracy rests on; 0 for a prediction.
        costs: those of :data:`~paretopath.costs.COSTS` that are known, for one image; each can
            be read as an attribute too (``point.energy_mj``), None where it is not known.
        test_accuracy: of the same weights on the test split; None until it is evaluated.
        test_error: its standard error.
        retrained: what retraining made of the path, by mode (``separate``, ``shared``).

    Raises:
        InvalidValueError: a number is not finite, a name is no cost, or one that every point has
            is missing.
    """

    path: PathField
    number: int
    accuracy: float
    accuracy_error: float
    samples: int
    costs: Mapping[CostName, float] = field(hash=False)
    test_accuracy: float | None = None
    test_error: float | None = None
    retrained: Mapping[str, Retrained] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        _require_finite(self)
        for name, value in self.costs.items():
            if not math.isfinite(value):
                raise InvalidValueError(
                    f"{cost_named(name).name} must be finite (None if it was not measured), "
                    f"but got {value}"
                )
        for cost in COSTS:
            if cost.required and cost.name not in self.costs:
                raise InvalidValueError(f"a point must have {cost.name}")
        object.__setattr__(self, "costs", known_costs(self.costs))

    def __getattr__(self, name: str) -> Any:
        if name in COST_NAMES:
            return self.costs.get(name)
        raise AttributeError(f"a point has no {name!r}")

    @classmethod
    def of_trial(cls, trial: TrialRecord) -> "Point":
        """The point that a complete trial found.

        Raises:
            InvalidValueError: the trial is not complete (its accuracy is absent, or rests on some
                of the images only), or a cost that every point has is unknown.
        """
        if trial.state != "complete" or trial.accuracy is None or trial.accuracy_error is None:
            raise InvalidValueError(
                f"only a complete trial can stand on a front, but trial {trial.number} is "
                f"{trial.state} with accuracy {trial.accuracy} ± {trial.accuracy_error}"
            )
        for cost in COSTS:
            if cost.required and cost.name not in trial.costs:
                raise InvalidValueError(f"trial {trial.number} must have {cost.name} to be a point")
        return cls(
            path=trial.path,
            number=trial.number,
            accuracy=trial.accuracy,
            accuracy_error=trial.accuracy_error,
            samples=trial.samples,
            costs=trial.costs,
        )

    @property
    def id(self) -> str:
        """The path's name in files and on the command line."""
        return self.path.id

    @property
    def best_mode(self) -> str | None:
        """The mode of retraining with the best validation accuracy; None if there was none."""
        return max(self.retrained, key=lambda mode: self.retrained[mode].accuracy, default=None)

    @property
    def best_retrained(self) -> Retrained | None:
        """What :attr:`best_mode` made of the path."""
        return None if self.best_mode is None else self.retrained[self.best_mode]

    @property
    def retrained_accuracy(self) -> float | None:
        """The best validation accuracy after retraining."""
        best = self.best_retrained
        return best.accuracy if best else None

    @property
    def retrained_error(self) -> float | None:
        """The standard error of :attr:`retrained_accuracy`."""
        best = self.best_retrained
        return best.error if best else None

    @property
    def best_accuracy(self) -> float:
        """The best validation accuracy known, before or after retraining."""
        return max(self.accuracy, self.retrained_accuracy or 0.0)

    def cost(self, name: CostName) -> float | None:
        """One of the point's costs, None where it is unknown."""
        return self.costs.get(cost_named(name).name)


class Priced(Protocol):
    """What has an id and costs."""

    @property
    def id(self) -> str:
        """Its name on the command line."""
        ...

    @property
    def costs(self) -> Mapping[CostName, float]:
        """Those that are known, for one image."""
        ...


def known_cost(point: Priced, name: CostName) -> float:
    """One of a point's costs, where it must be known.

    Raises:
        InvalidValueError: it is not.
    """
    value = point.costs.get(cost_named(name).name)
    if value is None:
        raise InvalidValueError(f"path {point.id} has no {name}; {nearest(name, point.costs)}")
    return value


def _require_finite(record: TrialRecord | Retrained | Point) -> None:
    """Refuses NaN and infinity; what was not measured is None."""
    for spec in dataclasses.fields(record):
        value = getattr(record, spec.name)
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidValueError(
                f"{spec.name} must be finite (None if it was not measured), but got {value}"
            )
