"""Calibration images walk paths beside the full model, unit by unit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from paretopath.elastic.channels import reading
from paretopath.elastic.exits import exit_paths
from paretopath.elastic.layers import ElasticConv2d, ElasticLinear
from paretopath.elastic.own import PathTensors, named
from paretopath.elastic.prefixes import Node, PrefixTree
from paretopath.elastic.repair.targets import Targets
from paretopath.elastic.repair.watched import Fitted, Watched, look
from paretopath.elastic.units import Chain, State
from paretopath.errors import InvalidValueError
from paretopath.paths import ExecutionPath, Value


@dataclass(frozen=True)
class _Walk:
    """What reaches a node of the tree.

    Attributes:
        state: of the calibration images on the path.
        full: nodes of the full model's own tree that may come next, as long as the path is the full
            model so far; none once it is another.
        fitted: what the path's layers have for themselves so far.
    """

    state: State
    full: Sequence[Node]
    fitted: Fitted


class Repair:
    """Re-solves paths of a model on calibration images.

    All images run as one batch: a forward pass over them must fit in memory. The full model's
    streams are kept at sampled positions, :data:`ROWS_PER_INPUT` for each input of a layer.

    Args:
        model: on the device of its images; its weights must not change while this is in use.
        images: (N, C, Y, X), at least two.
        measure: whether batch normalisations that no re-solved layer feeds are given the path's own
            statistics; the model's own must be those of its full paths.
        settled: so many first steps are the same on all paths that come
            (:func:`~paretopath.elastic.prefixes.settled_steps`): they run once.
        seed: of the positions that are looked at.

    Raises:
        InvalidValueError: fewer than two images.
    """

    def __init__(
        self,
        model: Chain,
        images: Tensor,
        *,
        measure: bool = False,
        settled: int = 0,
        seed: int = 0,
    ) -> None:
        if len(images) < 2:
            raise InvalidValueError(f"repair needs at least two images, but got {len(images)}")
        self.model = model
        self.images = images
        self.measure = measure
        self.settled = settled
        self._targets = Targets(_readers(model) | _last(model), seed=seed)
        self._start: _Walk | None = None

    @torch.no_grad()
    def __call__(self, paths: Sequence[Mapping[str, Value]]) -> dict[ExecutionPath, PathTensors]:
        """What each path has for itself, those left out that need nothing.

        Args:
            paths: canonical.
        """
        units = self.model.units
        training = units.training
        units.eval()
        try:
            start = self._start = self._start or self._begin()
            found = {}
            for index, walk in _tree(self.model, paths, self.settled).run(start, self._walk):
                if walk.fitted:
                    path = ExecutionPath(paths[index])
                    found[path] = PathTensors(path, named(units, walk.fitted))
        finally:
            units.train(training)
        return found

    def _look(self) -> PrefixTree:
        """Runs the full model, up to each of its exits, and notes where its layers' results land.

        Returns:
            Its steps.
        """
        tree = _tree(self.model, exit_paths(self.model))

        def run(node: Node, state: State) -> State:
            return look(node.step, state, self._targets)

        for _ in tree.run(self.images, run):
            pass
        return tree

    def _begin(self) -> _Walk:
        """What reaches the first step that is not the same on all paths."""
        walk = _Walk(self.images, self._look().roots, {})
        for _ in range(self.settled):
            (node,) = walk.full
            walk = self._walk(node, walk)
        return walk

    def _walk(self, node: Node, walk: _Walk) -> _Walk:
        """Runs a step on the calibration images and solves its layers on the way."""
        for full in walk.full:
            if full.step == node.step:  # the full model so far: nothing to be made up for
                return _Walk(node.step(walk.state), full.children, walk.fitted)
        watched = Watched(self._targets, {}, norms=self.measure)
        state = watched.solve(node.step, walk.state)
        return _Walk(state, (), walk.fitted | watched.fitted)


def repairable(model: Chain) -> bool:
    """Whether a model has layers that narrowed channels are read by, to be solved for others.

    Once-For-All's has none: its narrow paths were trained as they are.
    """
    return bool(_readers(model))


def _readers(model: Chain) -> set[nn.Module]:
    """The layers that read narrowed channels."""
    return {
        reading(unit, reader)
        for unit in model.chain
        for group in unit.channel_groups()
        for reader in group.readers
    }


def _last(model: Chain) -> set[nn.Module]:
    """The layers of units that end a path: no stream leads past them."""
    ends = [unit for unit in model.chain if unit.is_exit or unit is model.chain[-1]]
    return {
        layer
        for unit in ends
        for layer in unit.modules()
        if isinstance(layer, ElasticLinear | ElasticConv2d)
    }


def _tree(model: Chain, paths: Sequence[Mapping[str, Value]], skip: int = 0) -> PrefixTree:
    """The steps of canonical paths, with nothing of their own."""
    nothing = {ExecutionPath(path): PathTensors(ExecutionPath(path), {}) for path in paths}
    return PrefixTree(model, paths, skip=skip, own=nothing)
