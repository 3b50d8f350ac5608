"""The contract of a task, and the accuracy that it measures."""

import math
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from pipeline.errors import InvalidValueError


@dataclass(frozen=True)
class Score:
    """An accuracy and how far to trust it.

    Attributes:
        value: the task's metric, in [0, 1], more is better; finite.
        error: its standard error, in the same unit; 0 for a predictor's answer.
        samples: how many images it rests on.
    """

    value: float
    error: float
    samples: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.value) and math.isfinite(self.error)):
            raise InvalidValueError(
                f"an accuracy must be finite, but got value={self.value}, error={self.error}"
            )


class Scorer(Protocol):
    """Gathers one path's outputs into a score."""

    def update(self, output: Any, target: Any) -> None:
        """Takes a batch: the model's output and what was right, batch first, on any device."""
        ...

    def compute(self) -> Score:
        """The score of all batches so far. Raises InvalidValueError if it is not finite."""
        ...


class Task(Protocol):
    """What a batch, a loss and an accuracy are."""

    @property
    def name(self) -> str:
        """``classification``, ``segmentation`` …"""
        ...

    @property
    def metric(self) -> str:
        """The accuracy's name, as people write it: ``top-1``, ``mIoU`` …"""
        ...

    def loss(self, output: Any, target: Any) -> Tensor:
        """The training loss of a batch, a scalar."""
        ...

    def distillation_loss(self, output: Any, teacher: Any, target: Any) -> Tensor:
        """The loss of a student's output against its (detached) teacher's and the truth, a
        scalar.
        """
        ...

    def scorer(self) -> Scorer:
        """A new, empty scorer."""
        ...
