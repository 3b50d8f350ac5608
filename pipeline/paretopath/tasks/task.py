"""The contract of a task, and the accuracy that it measures."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypedDict, runtime_checkable

import numpy as np
import numpy.typing as npt
from torch import Tensor

from paretopath.errors import InvalidValueError
from paretopath.paths import ExecutionPath


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


@dataclass(frozen=True)
class Told(Score):
    """A score whose images told of other paths of the space, too: those cost no trial.

    Attributes:
        also: canonical paths with their scores; all differ from the path in decisions that one
            evaluation tells all values of (:attr:`~paretopath.paths.SearchSpace.told`), or end
            earlier on the same way.
    """

    also: Mapping[ExecutionPath, Score] = field(default_factory=dict)


@dataclass(frozen=True)
class Stopped:
    """An evaluation that was given up because another path was clearly better for no more.

    Attributes:
        score: the accuracy to be expected on all images, its error that of not having seen them
            included; ``samples`` are the images seen.
        beaten_by: the other path's id.
    """

    score: Score
    beaten_by: str


class Scorer(Protocol):
    """Gathers one path's outputs into a score."""

    def update(self, output: Any, target: Any) -> None:
        """Takes a batch: the model's output and what was right, batch first, on any device."""
        ...

    def compute(self) -> Score:
        """The score of all batches so far. Raises InvalidValueError if it is not finite."""
        ...


@runtime_checkable
class ResamplingScorer(Scorer, Protocol):
    """A scorer that keeps what it needs of each image: candidates can race with it."""

    def resampled(self, draws: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """The accuracy on resamples of the images so far.

        Args:
            draws: (resamples, images) how often each resample holds each image.

        Returns:
            (resamples,).
        """
        ...


@runtime_checkable
class ImagewiseScorer(Scorer, Protocol):
    """A scorer that judges image by image: images can leave at exits of their own."""

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """(images,) which answers are right, in the order in which they came."""
        ...

    @property
    def confidence(self) -> npt.NDArray[np.floating]:
        """(images,) how sure the model was of them: the task's own confidence."""
        ...


@runtime_checkable
class ClasswiseScorer(Scorer, Protocol):
    """A scorer that tells classes apart."""

    def by_class(self) -> Mapping[int, float | None]:
        """The accuracy of each class, by its number from 0; None where none of it occurs."""
        ...


class Mark(TypedDict):
    """Something found in an image, or to be found there, as people are shown it.

    Attributes:
        box: x0, y0, x1, y1 in pixels of the model's input; None for the whole image.
        label: its class from 0.
        score: how sure the model is of it, in [0, 1]; None for what is there.
    """

    box: list[float] | None
    label: int
    score: float | None


@runtime_checkable
class PicturingTask(Protocol):
    """A task whose outputs can be drawn over the images."""

    def marks(self, output: Any) -> list[list[Mark]]:
        """What the model is fairly sure of, image by image."""
        ...

    def truth(self, target: Any) -> list[list[Mark]]:
        """What is there, image by image."""
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

    def confidence(self, output: Any) -> Tensor:
        """How sure the model is of each image, (B,) in [0, 1]: images leave at an early exit whose
        confidence reaches a threshold. 0 for what is not a number, so that it never leaves.
        """
        ...

    def scorer(self) -> Scorer:
        """A new, empty scorer."""
        ...


def require_imagewise(task: Task) -> None:
    """Refuses a task whose scorers are no :class:`ImagewiseScorer`.

    Raises:
        InvalidValueError: it says of no single image whether its answer is right.
    """
    if not hasattr(type(task.scorer()), "right"):  # an empty scorer's own has nothing to say
        raise InvalidValueError(
            f"leaving early is chosen image by image, but the task {task.name} does not say of "
            f"each image whether its answer is right; legal: classification"
        )
