"""The accuracy of many paths at once: units on which paths agree run once per batch.

Paths are sequences of steps; a population of them is a prefix tree. Each batch walks the tree depth
first, so the states alive at one time are at most one per branching on the way down, never one per
path.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.elastic import ElasticModel, State, Step
from pipeline.errors import InvalidValueError
from pipeline.paths import Value
from pipeline.tasks.task import Score, Task

Batch = tuple[Tensor, Any]


@dataclass
class Node:
    """One step that every path through it shares.

    Attributes:
        step: what runs here.
        children: what runs next, on the paths that go on.
        paths: indices of the paths that end here.
    """

    step: Step
    children: list["Node"] = field(default_factory=list)
    paths: list[int] = field(default_factory=list)


class PrefixTree:
    """The steps of a population of paths, shared prefixes merged.

    Args:
        model: whose units.
        paths: canonical paths.
    """

    def __init__(self, model: ElasticModel, paths: Sequence[Mapping[str, Value]]) -> None:
        self.roots: list[Node] = []
        for index, path in enumerate(paths):
            level = self.roots
            node: Node | None = None
            for step in model.steps(path):
                node = next((n for n in level if n.step == step), None)
                if node is None:
                    node = Node(step)
                    level.append(node)
                level = node.children
            assert node is not None
            node.paths.append(index)

    def nodes(self) -> Iterator[Node]:
        """All nodes, depth first: the steps that one batch runs."""
        stack = self.roots[::-1]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children[::-1])

    def run(self, images: Tensor) -> Iterator[tuple[int, Any]]:
        """Yields (path index, output) for a batch of images, each distinct step run once.

        At most one state is alive for each branching node on the way from the root to the current
        one.
        """
        stack: list[tuple[Node, State]] = [(node, images) for node in self.roots[::-1]]
        while stack:
            node, state = stack.pop()
            state = node.step(state)
            for index in node.paths:
                yield index, state
            stack.extend((child, state) for child in node.children[::-1])


class Evaluator:
    """Scores paths of a model on fixed data.

    Args:
        model: holds the weights. Runs in evaluation mode, its active path untouched.
        batches: (images, targets) pairs; iterated once for each call, so give a list or a loader
            that can be.
        task: makes the scorers.
        device: where to run; the model must be there.
        precision: autocast data type, or None for the weights' own.
    """

    def __init__(
        self,
        model: ElasticModel,
        batches: Iterable[Batch],
        task: Task,
        *,
        device: torch.device | str = "cpu",
        precision: torch.dtype | None = None,
    ) -> None:
        self.model = model
        self.batches = batches
        self.task = task
        self.device = torch.device(device)
        self.precision = precision

    @torch.inference_mode()
    def __call__(self, paths: Sequence[Mapping[str, Value]]) -> list[Score | InvalidValueError]:
        """The score of each canonical path, in order.

        A path whose outputs are not finite gets the error in place of a score; the others are not
        touched by it.
        """
        tree = PrefixTree(self.model, paths)
        scorers = [self.task.scorer() for _ in paths]
        training = self.model.training
        self.model.eval()
        try:
            for images, targets in self.batches:
                with self._autocast():
                    for index, output in tree.run(images.to(self.device, non_blocking=True)):
                        scorers[index].update(output, targets)
        finally:
            self.model.train(training)
        scores: list[Score | InvalidValueError] = []
        for scorer in scorers:
            try:
                scores.append(scorer.compute())
            except InvalidValueError as error:
                scores.append(error)
        return scores

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.precision)


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
