"""The accuracy of paths whose images leave early, among many others: exits are ordinary paths.

A path with its policy is several paths, one to each exit on its way. They share their prefixes, so
a prefix tree runs the blocks once, each exit with what was fitted to the path that ends there; who
leaves where is then a matter of what the exits said. So a score tells of other policies, too.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt

from paretopath.elastic import ElasticModel
from paretopath.errors import InvalidValueError
from paretopath.evaluation.evaluator import Batch
from paretopath.evaluation.fitted import scored
from paretopath.evaluation.source import BatchedSource, PartialEvaluation
from paretopath.paths import ExecutionPath
from paretopath.policies.shares import LeavingSpace, WaysOut, leave_by_shares
from paretopath.policies.telling import CostOf, tell
from paretopath.tasks.classification.task import proportion_error
from paretopath.tasks.task import ImagewiseScorer, Score, Task, Told, require_imagewise

Number = TypeVar("Number", bound=np.generic)


class LeavingEvaluator:
    """Scores paths with policies.

    Args:
        evaluator: of paths without; its task judges image by image.
        model: that it runs.
        space: of paths with policies.
        cost_of: what a search minimises: of what a path tells, nothing that is beaten is told.

    Raises:
        InvalidValueError: the task does not judge image by image.
    """

    def __init__(
        self, evaluator: BatchedSource, model: ElasticModel, space: LeavingSpace, cost_of: CostOf
    ) -> None:
        self.evaluator = evaluator
        self._model, self._space, self._cost_of = model, space, cost_of
        require_imagewise(evaluator.task)

    @property
    def task(self) -> Task:
        """What makes the scorers."""
        return self.evaluator.task

    @property
    def batches(self) -> Iterable[Batch]:
        """The images on which paths are scored, with their targets."""
        return self.evaluator.batches

    def __call__(self, paths: Sequence[ExecutionPath]) -> Iterator[Score | Exception]:
        """The score of each canonical path, in order."""
        for score, _ in scored(self, paths):
            yield score

    def begin(self, paths: Sequence[ExecutionPath]) -> "LeavingEvaluation":
        """An evaluation that has seen no image yet."""
        apart = [self._space.apart(path, self._model) for path in paths]
        ways = list(dict.fromkeys(way for leaving in apart for way in leaving.ways))
        evaluation = self.evaluator.begin(ways)
        return LeavingEvaluation(evaluation, ways, paths, apart, self._space, self._cost_of)


class LeavingEvaluation:
    """Paths with policies that see the images batch by batch.

    Args:
        evaluation: of the ways.
        ways: paths without policies.
        paths: those with policies.
        leaving: the same taken apart, in these ways.
        space: of the paths with policies.
        cost_of: see :class:`LeavingEvaluator`.

    Attributes:
        scorers: one for each path with its policy.
    """

    def __init__(
        self,
        evaluation: PartialEvaluation,
        ways: Sequence[ExecutionPath],
        paths: Sequence[ExecutionPath],
        leaving: Sequence[WaysOut],
        space: LeavingSpace,
        cost_of: CostOf,
    ) -> None:
        number = {way: i for i, way in enumerate(ways)}
        self._evaluation = evaluation
        self._paths, self._leaving = paths, leaving
        self._space, self._cost_of = space, cost_of
        self._ways = [[number[way] for way in one.ways] for one in leaving]
        self.scorers = [
            LeavingScorer([cast(ImagewiseScorer, evaluation.scorers[i]) for i in mine], one.shares)
            for mine, one in zip(self._ways, leaving, strict=True)
        ]

    def advance(self, active: Sequence[int], *, batches: int | None = None) -> int:
        """See :class:`~paretopath.evaluation.source.PartialEvaluation`."""
        ways = sorted({way for index in active for way in self._ways[index]})
        return self._evaluation.advance(ways, batches=batches)

    def score(self, index: int) -> Score | Exception:
        """The score of a path on the images that it has seen, with those of other paths of which
        they tell; or why there is none.
        """
        scorer = self.scorers[index]
        try:
            score = scorer.compute()
        except InvalidValueError as error:
            return error
        also = tell(
            self._space,
            self._paths[index],
            self._leaving[index],
            [exit_.confidence for exit_ in scorer.exits],
            [exit_.right for exit_ in scorer.exits],
            self._cost_of,
        )
        return Told(score.value, score.error, score.samples, also)


class LeavingScorer:
    """What a policy comes to, from what each exit that it asks said.

    Args:
        exits: scorers that judge image by image.
        shares: of the images that come to each exit but the last, those that leave there.
    """

    def __init__(self, exits: Sequence[ImagewiseScorer], shares: Sequence[float]) -> None:
        self.exits, self._shares = exits, shares

    def update(self, output: object, target: object) -> None:
        """Nothing: the exits' own scorers take the batches."""

    @property
    def confidence(self) -> npt.NDArray[np.floating]:
        """(images,) how sure the exit was at which each image leaves."""
        return self._of_exits([scorer.confidence for scorer in self.exits])

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """(images,) which answers are right."""
        return self._of_exits([scorer.right for scorer in self.exits])

    def resampled(self, draws: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """See :class:`~paretopath.tasks.task.ResamplingScorer`."""
        shares: npt.NDArray[np.float64] = draws @ self.right / draws.sum(axis=1)
        return shares

    def compute(self) -> Score:
        """The share of right answers; InvalidValueError if an exit's outputs are not finite."""
        for scorer in self.exits:
            scorer.compute()
        right = self.right
        hits, samples = int(right.sum()), len(right)
        return Score(hits / samples, proportion_error(hits, samples), samples)

    def _of_exits(self, rows: Sequence[npt.NDArray[Number]]) -> npt.NDArray[Number]:
        early = [scorer.confidence for scorer in self.exits[:-1]]
        if not early:
            return rows[-1]
        return np.stack(rows)[leave_by_shares(early, self._shares), np.arange(len(rows[-1]))]
