"""Paths scored as they are deployed: each with what was fitted to it on calibration images."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Protocol

from paretopath.elastic.own import OwnFolder, PathTensors
from paretopath.errors import InvalidValueError
from paretopath.evaluation.evaluator import Batch, Evaluation, Evaluator
from paretopath.evaluation.source import AccuracySource
from paretopath.paths import ExecutionPath, Value
from paretopath.tasks.task import Score, Scorer, Task

AT_ONCE = 8
"""Paths that are fitted together: what they have for themselves is held in memory."""


class Fit(Protocol):
    """Finds what paths have for themselves: re-solved weights, batch-normalisation statistics."""

    def __call__(
        self, paths: Sequence[Mapping[str, Value]], /
    ) -> Mapping[ExecutionPath, PathTensors]:
        """What canonical paths have, those left out that need nothing."""
        ...


def scored(
    evaluator: AccuracySource, paths: Sequence[ExecutionPath]
) -> Iterator[tuple[Score | Exception, Scorer]]:
    """The score of each canonical path, in order, and the scorer that it is of."""
    left = iter(paths)
    while some := list(islice(left, AT_ONCE)):
        evaluation = evaluator.begin(some)
        evaluation.advance(range(len(some)))
        for index in range(len(some)):
            yield evaluation.score(index), evaluation.scorers[index]


class FittedEvaluator:
    """Scores paths as an :class:`~paretopath.evaluation.evaluator.Evaluator` does, each with what
    is fitted to it.

    Args:
        evaluator: with the model.
        fit: of the same model.
        kept: where what is found is kept and found again; None finds it each time.
    """

    def __init__(self, evaluator: Evaluator, fit: Fit, *, kept: OwnFolder | None = None) -> None:
        self.evaluator = evaluator
        self.fit = fit
        self.kept = kept

    @property
    def task(self) -> Task:
        """What makes the scorers."""
        return self.evaluator.task

    @property
    def batches(self) -> Iterable[Batch]:
        """The images on which paths are scored, with their targets."""
        return self.evaluator.batches

    def __call__(self, paths: Sequence[Mapping[str, Value]]) -> Iterator[Score | InvalidValueError]:
        """The score of each canonical path, in order; see :meth:`Evaluator.__call__`."""
        left = iter(paths)
        while some := list(islice(left, AT_ONCE)):
            yield from self.evaluator(some, own=self.own(some))

    def begin(self, paths: Sequence[Mapping[str, Value]]) -> Evaluation:
        """An evaluation that has seen no image yet, of paths that are fitted now."""
        return self.evaluator.begin(paths, own=self.own(paths))

    def own(self, paths: Sequence[Mapping[str, Value]]) -> dict[ExecutionPath, PathTensors]:
        """What canonical paths have for themselves, those left out that have nothing."""
        known: dict[ExecutionPath, PathTensors] = {}
        wanted = dict.fromkeys(map(ExecutionPath, paths))
        for path in wanted:
            found = self.kept[path] if self.kept is not None else None
            if found is not None:
                known[path] = found
        new = [path for path in wanted if path not in known]
        fitted = self.fit(new) if new else {}
        for path in new:
            known[path] = fitted.get(path, PathTensors(path, {}))
            if self.kept is not None:
                self.kept.keep(known[path])
        return {path: own for path, own in known.items() if own.tensors}
