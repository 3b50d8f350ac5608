"""What gives accuracies: models on images, races between them, predictors."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from paretopath.paths import ExecutionPath
from paretopath.tasks.task import Score, Scorer, Stopped, Task

Outcome = Score | Stopped | Exception
"""What a path came to: a score, a stop because another path was clearly better, or why it failed.
"""


class PartialEvaluation(Protocol):
    """Paths that see the images batch by batch; some of them may be left behind."""

    @property
    def scorers(self) -> Sequence[Scorer]:
        """One for each path; none where no image is looked at."""
        ...

    def advance(self, active: Sequence[int], *, batches: int | None = None) -> int:
        """Shows the next batches, all that are left by default, to some of the paths.

        Args:
            active: indices of the paths; only those that have seen all images so far.
            batches: at most so many.

        Returns:
            How many batches were shown.
        """
        ...

    def score(self, index: int) -> Score | Exception:
        """The score of a path on the images that it has seen, or why there is none."""
        ...


class AccuracySource(Protocol):
    """Measures or predicts the accuracy of paths."""

    def __call__(self, paths: Sequence[ExecutionPath], /) -> Iterable[Outcome]:
        """What each canonical path comes to, in order.

        What is yielded early is recorded early. An error that is raised is no path's own.
        """
        ...

    def begin(self, paths: Sequence[ExecutionPath], /) -> PartialEvaluation:
        """An evaluation that has seen no image yet."""
        ...


class BatchedSource(AccuracySource, Protocol):
    """One that measures on batches of labelled images."""

    @property
    def task(self) -> Task:
        """What makes the scorers."""
        ...

    @property
    def batches(self) -> Iterable[tuple[Any, Any]]:
        """The images with their targets, in an order that does not change."""
        ...
