"""The accuracy of many paths at once: units on which paths agree run once per batch.

Paths are sequences of steps; a population of them is a prefix tree. Each batch walks the tree depth
first, the branch with most paths last, so few states are alive at one time however many paths there
are. The steps that all paths of a search share run once a search, where their results fit in
memory.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from paretopath.elastic import ElasticModel, State, Step
from paretopath.elastic.own import PathTensors
from paretopath.elastic.prefixes import PrefixTree, settled_steps
from paretopath.errors import InvalidValueError
from paretopath.paths import ExecutionPath, SearchSpace, Value
from paretopath.tasks.task import Score, Scorer, Task

Batch = tuple[Tensor, Any]


class Features:
    """Batches after the steps that all paths share, kept while they fit in memory.

    The first batches are kept, as many as fit; the rest is computed anew each time.

    Args:
        batches: (images, targets) in an order that does not change.
        most_bytes: of tensors, targets not counted.
    """

    def __init__(self, batches: Iterable[Batch], most_bytes: float) -> None:
        self._batches = batches
        self._most_bytes = most_bytes
        self._kept: list[tuple[State, Any]] = []
        self.bytes = 0
        self._is_whole = False  # whether every batch is kept
        self._is_full = False

    def through(self, steps: Sequence[Step], evaluator: "Evaluator") -> Iterator[tuple[State, Any]]:
        """Yields (state after the steps, targets) for each batch; runs only what isn't kept."""
        position = 0
        while position < len(self._kept):  # others may add to them in between
            yield self._kept[position]
            position += 1
        if self._is_whole:
            return
        for images, targets in islice(self._batches, position, None):
            state: State = images.to(evaluator.device, non_blocking=True)
            with evaluator.autocast():
                for step in steps:
                    evaluator.count(step, len(images))
                    state = step(state)
            self._keep(position, state, targets)
            position += 1
            yield state, targets
        self._is_whole = len(self._kept) == position

    def _keep(self, position: int, state: State, targets: Any) -> None:
        size = _bytes_of(state)
        self._is_full = self._is_full or self.bytes + size > self._most_bytes
        if not self._is_full and position == len(self._kept):
            self._kept.append((state, targets))
            self.bytes += size


def _bytes_of(state: State) -> int:
    tensors = torch.utils._pytree.tree_leaves(state)
    return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor))


def _batch_size(state: State) -> int:
    return len(torch.utils._pytree.tree_leaves(state)[0])


class Evaluator:
    """Scores paths of a model on fixed data.

    Args:
        model: holds the weights, which must not change while the evaluator is in use. Runs in
            evaluation mode, its active path untouched.
        batches: (images, targets) pairs; iterated once for each call, so give a list or a loader
            that can be, in an order that does not change.
        task: makes the scorers.
        device: where to run; the model must be there.
        precision: autocast data type, or None for the weights' own.
        space: of the paths, the model's own by default: its first steps that no decision changes
            run once, where the results fit in ``feature_bytes``.
        feature_bytes: the most memory that these results may take.

    Attributes:
        work: images that each step has run on so far.
    """

    def __init__(
        self,
        model: ElasticModel,
        batches: Iterable[Batch],
        task: Task,
        *,
        device: torch.device | str = "cpu",
        precision: torch.dtype | None = None,
        space: SearchSpace | None = None,
        feature_bytes: float = 0,
    ) -> None:
        self.model = model
        self.batches = batches
        self.task = task
        self.device = torch.device(device)
        self.precision = precision
        self.settled = settled_steps(model, space or model.space) if feature_bytes > 0 else 0
        self.features = Features(batches, feature_bytes if self.settled else 0)
        self.work: Counter[Step] = Counter()

    def __call__(
        self,
        paths: Sequence[Mapping[str, Value]],
        *,
        own: Mapping[ExecutionPath, PathTensors] | None = None,
    ) -> list[Score | InvalidValueError]:
        """The score of each canonical path, in order.

        A path whose outputs are not finite gets the error in place of a score; the others are not
        touched by it.

        Args:
            paths: canonical.
            own: what paths have for themselves, besides what the model knows of.
        """
        evaluation = self.begin(paths, own=own)
        evaluation.advance(range(len(paths)))
        return [evaluation.score(index) for index in range(len(paths))]

    def begin(
        self,
        paths: Sequence[Mapping[str, Value]],
        *,
        own: Mapping[ExecutionPath, PathTensors] | None = None,
    ) -> "Evaluation":
        """An evaluation that has seen no image yet; see :meth:`__call__`."""
        return Evaluation(self, paths, own)

    def count(self, step: Step, images: int) -> None:
        """Notes that a step runs on so many images."""
        self.work[step] += images

    def autocast(self) -> AbstractContextManager[Any]:
        """What forward passes run in."""
        if self.precision is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.precision)


class Evaluation:
    """Paths that see the images batch by batch; some of them may be left behind.

    Args:
        evaluator: gives model, data and task.
        paths: canonical.
        own: what paths have for themselves.

    Attributes:
        scorers: one for each path.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        paths: Sequence[Mapping[str, Value]],
        own: Mapping[ExecutionPath, PathTensors] | None = None,
    ) -> None:
        self._evaluator = evaluator
        self._paths = paths
        self._own = own
        self.scorers: list[Scorer] = [evaluator.task.scorer() for _ in paths]
        self._skip, steps = self._shared_steps()
        features = evaluator.features if self._skip else Features(evaluator.batches, 0)
        self._batches = features.through(steps, evaluator)

    def _shared_steps(self) -> tuple[int, tuple[Step, ...]]:
        """The first steps that all paths share, and their number: none, where what a path has for
        itself makes one of them its own.
        """
        model, settled = self._evaluator.model, self._evaluator.settled
        firsts = [
            model.steps(path, self._own.get(ExecutionPath(path)) if self._own else None)[:settled]
            for path in (self._paths if settled else ())
        ]
        if not firsts or any(step.own is not None for first in firsts for step in first):
            return 0, ()
        return settled, firsts[0]

    @torch.inference_mode()
    def advance(self, active: Sequence[int], *, batches: int | None = None) -> int:
        """Shows the next batches, all that are left by default, to some of the paths.

        Args:
            active: indices of the paths; only those that have seen all images so far.
            batches: at most so many.

        Returns:
            How many batches were shown.
        """
        evaluator, shown = self._evaluator, 0
        chosen = [self._paths[index] for index in active]
        tree = PrefixTree(evaluator.model, chosen, skip=self._skip, own=self._own)
        nodes = list(tree.nodes())
        training = evaluator.model.training
        evaluator.model.eval()
        try:
            for state, targets in islice(self._batches if active else (), batches):
                with evaluator.autocast():
                    for place, output in tree.run(state):
                        self.scorers[active[place]].update(output, targets)
                for node in nodes:
                    evaluator.count(node.step, _batch_size(state))
                shown += 1
        finally:
            evaluator.model.train(training)
        return shown

    def score(self, index: int) -> Score | InvalidValueError:
        """The score of a path on the images that it has seen, or why there is none."""
        try:
            return self.scorers[index].compute()
        except InvalidValueError as error:
            return error


@torch.inference_mode()
def score_model(
    module: nn.Module, batches: Iterable[Batch], task: Task, *, device: torch.device | str = "cpu"
) -> Score:
    """The score of a plain model, which must be on ``device``.

    Raises:
        InvalidValueError: its outputs are not finite.
    """
    scorer = task.scorer()
    training = module.training
    module.to(device).eval()
    try:
        for images, targets in batches:
            scorer.update(module(images.to(device, non_blocking=True)), targets)
    finally:
        module.train(training)
    return scorer.compute()
