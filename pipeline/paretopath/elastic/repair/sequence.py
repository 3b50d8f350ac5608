"""Calibration images walk paths beside the full model, unit by unit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

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
        targets: where layers' results shall land.
        state: of the calibration images on the path.
        full: nodes of the full model's own tree that may come next, as long as the path is the full
            model so far; none once it is another.
        fitted: what the path's layers have for themselves so far.
    """

    targets: Targets
    state: State
    full: Sequence[Node]
    fitted: Fitted


class Repair:
    """Re-solves paths of a model on calibration images.

    A decision that acts first in a unit without parameters, such as the size at which a model sees
    its images, is nothing that weights could make up for: the full model is then the one that
    decides it alike.

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
        self.seed = seed
        self._given = _given(model)
        self._starts: dict[ExecutionPath, _Walk] = {}

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
            found = {}
            for given, alike in self._by_given(paths).items():
                start = self._starts.get(given) or self._begin(given)
                self._starts[given] = start
                tree = _tree(self.model, alike, self.settled)
                for index, walk in tree.run(start, self._walk):
                    if walk.fitted:
                        path = ExecutionPath(alike[index])
                        found[path] = PathTensors(path, named(units, walk.fitted))
        finally:
            units.train(training)
        return found

    def _by_given(
        self, paths: Sequence[Mapping[str, Value]]
    ) -> dict[ExecutionPath, list[Mapping[str, Value]]]:
        """Paths by the full path that decides alike what weights can't make up for."""
        found: dict[ExecutionPath, list[Mapping[str, Value]]] = {}
        for path in paths:
            given = {name: path[name] for name in self._given if name in path}
            found.setdefault(self.model.space.canonical(given), []).append(path)
        return found

    def _begin(self, given: ExecutionPath) -> _Walk:
        """What reaches the first step that is not the same on all paths.

        Runs the full model, up to each of its exits, and notes where its layers' results land.

        Args:
            given: the full path, but for what weights can't make up for.
        """
        targets = Targets(_readers(self.model) | _last(self.model), seed=self.seed)
        own = {name: given[name] for name in self._given if name in given}
        canonical = self.model.space.canonical
        full = list(dict.fromkeys(canonical({**path, **own}) for path in exit_paths(self.model)))
        tree = _tree(self.model, full)

        def run(node: Node, state: State) -> State:
            return look(node.step, state, targets)

        for _ in tree.run(self.images, run):
            pass
        walk = _Walk(targets, self.images, tree.roots, {})
        for _ in range(self.settled):
            (node,) = walk.full
            walk = self._walk(node, walk)
        return walk

    def _walk(self, node: Node, walk: _Walk) -> _Walk:
        """Runs a step on the calibration images and solves its layers on the way."""
        for full in walk.full:
            if full.step == node.step:  # the full model so far: nothing to be made up for
                return replace(walk, state=node.step(walk.state), full=full.children)
        watched = Watched(walk.targets, {}, norms=self.measure)
        state = watched.solve(node.step, walk.state)
        return replace(walk, state=state, full=(), fitted=walk.fitted | watched.fitted)


def repairable(model: Chain) -> bool:
    """Whether a model has layers that narrowed channels are read by, to be solved for others.

    Once-For-All's has none: its narrow paths were trained as they are.
    """
    return bool(_readers(model))


def _given(model: Chain) -> list[str]:
    """The decisions that act first in a unit without parameters; others only feel them."""
    first: dict[str, nn.Module] = {}
    for unit in model.chain:
        for name in unit.decisions:
            first.setdefault(name, unit)
    return [name for name, unit in first.items() if not any(True for _ in unit.parameters())]


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
