"""Paths that repair themselves: re-solved in sequence, unit by unit, no labels, no gradients.

Calibration images walk a path beside the full model. Each layer that writes into the stream is
solved so that the path's stream lands on the full model's,

    min over W, b of  E|r - (a + through(W h + b))|^2

with r the full model's stream behind the layer, a the path's own before it, h the layer's inputs as
this path has them, patches where its filters are larger than 1x1. So it takes up whatever narrower
and skipped units before it got wrong. Layers that narrowed channels are read by but that write into
no stream are solved for the full model's outputs of the same layer.

It is the reconstruction of He, Zhang and Sun, "Channel Pruning for Accelerating Very Deep Neural
Networks" (ICCV 2017, arXiv 1707.06168, section 3.2), carried on to skipped blocks and searched
paths. What a unit's solution depends on is the unit's own choice and the prefix that leads to it:
paths share it as they share the states of a prefix tree.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from paretopath.calibration.regression import regress
from paretopath.calibration.rows import Call
from paretopath.elastic import (
    ElasticBatchNorm2d,
    ElasticConv2d,
    ElasticLinear,
    ElasticModel,
    State,
    Step,
)
from paretopath.elastic.channels import reading
from paretopath.elastic.exits import exit_paths
from paretopath.elastic.own import Own, PathTensors, using
from paretopath.elastic.prefixes import Node, PrefixTree
from paretopath.errors import InvalidValueError
from paretopath.paths import ExecutionPath, Value

ROWS_PER_INPUT = 8
"""Positions that a layer is solved on, for each of its inputs at its fullest."""

LEAST_ROWS = 4096

HELD_OUT = 0.2
"""Share of the images on which the ridge is chosen."""

TINY = 1e-6
"""A channel whose scale is less, as a share of the largest, is left as it is."""


@dataclass(frozen=True)
class Target:
    """Where a layer's result shall land.

    Attributes:
        positions: of the result, over all images.
        rows: (n,) those that are looked at, rising.
        stream: (n, C) the full model's stream there.
    """

    positions: int
    rows: Tensor
    stream: Tensor

    @property
    def held(self) -> Tensor:
        """(n,) whether a row is of an image that is held out: the last ones."""
        return self.rows >= (1 - HELD_OUT) * self.positions


Fitted = dict[nn.Module, dict[str, Tensor | None]]
"""What layers have for themselves."""


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
            statistics.
        trained_on_full: whether the model's own statistics are those of its full paths; if not, as
            after training of several paths, they are measured for the full paths too.
        seed: of the positions that are looked at.

    Raises:
        InvalidValueError: fewer than two images.
    """

    def __init__(
        self,
        model: ElasticModel,
        images: Tensor,
        *,
        measure: bool = False,
        trained_on_full: bool = True,
        seed: int = 0,
    ) -> None:
        if len(images) < 2:
            raise InvalidValueError(f"repair needs at least two images, but got {len(images)}")
        self.model = model
        self.images = images
        self.measure = measure
        self.trained_on_full = trained_on_full
        self.seed = seed
        self._names = {module: name for name, module in model.named_modules()}
        self._readers = {
            reading(unit, reader)
            for unit in model.chain
            for group in unit.channel_groups()
            for reader in group.readers
        }
        self._targets: dict[nn.Module, Target] = {}
        self._tree: PrefixTree | None = None
        self._full: dict[int, Fitted] = {}  # of the full model, by node
        self._norms: Fitted = {}

    @torch.no_grad()
    def __call__(self, paths: Sequence[Mapping[str, Value]]) -> dict[ExecutionPath, PathTensors]:
        """What each path has for itself, those left out that need nothing.

        Args:
            paths: canonical.
        """
        training = self.model.training
        self.model.eval()
        try:
            tree = self._tree or self._look()
            start = _Walk(self.images, tree.roots, {})
            found = {}
            for index, walk in _tree(self.model, paths).run(start, self._walk):
                if walk.fitted:
                    path = ExecutionPath(paths[index])
                    found[path] = PathTensors(path, self._named(walk.fitted))
        finally:
            self.model.train(training)
        return found

    def _look(self) -> PrefixTree:
        """Runs the full model, up to each of its exits, and notes where its layers' results land.

        Returns:
            Its steps.
        """
        tree = _tree(self.model, exit_paths(self.model))

        def run(node: Node, state: State) -> State:
            watched = _Watched(self, {}, norms=self.measure and not self.trained_on_full)
            state = watched.note(node.step, state)
            self._full[id(node)] = watched.fitted
            self._norms |= watched.fitted
            return state

        for _ in tree.run(self.images, run):
            pass
        self._tree = tree
        return tree

    def _walk(self, node: Node, walk: _Walk) -> _Walk:
        """Runs a step on the calibration images and solves its layers on the way."""
        for full in walk.full:
            if full.step == node.step:  # the full model so far: nothing to be made up for
                fitted = self._full[id(full)]
                state = _Watched(self, fitted, norms=False).run(node.step, walk.state)
                return _Walk(state, full.children, walk.fitted | fitted)
        watched = _Watched(self, {}, norms=self.measure)
        state = watched.solve(node.step, walk.state)
        return _Walk(state, (), walk.fitted | watched.fitted)

    def _named(self, fitted: Fitted) -> dict[str, Tensor | None]:
        return {
            f"{self._names[layer]}.{name}": tensor
            for layer, tensors in fitted.items()
            for name, tensor in tensors.items()
        }

    def target(self, layer: nn.Module) -> Target | None:
        """Where a layer's result shall land; None if it is none's to say."""
        return self._targets.get(layer)

    def is_solved(self, call: Call) -> bool:
        """Whether a layer that is called so can be solved."""
        layer = call.layer
        is_dense = isinstance(layer, ElasticLinear) or layer.groups == 1
        return is_dense and (call.onto is not None or layer in self._readers)

    def add_target(self, call: Call, result: Tensor, scale: Tensor) -> None:
        """Notes where the full model's stream is behind a layer."""
        rows = self._sample(call)
        stream = call.at(result, rows) * scale
        if call.onto is not None:
            stream += call.at(call.onto.stream(), rows)
        self._targets[call.layer] = Target(call.positions, rows, stream)

    def _sample(self, call: Call) -> Tensor:
        """Positions of a layer's result, rising."""
        count = max(LEAST_ROWS, ROWS_PER_INPUT * call.layer.weight[0].numel())
        if call.positions <= count:
            return torch.arange(call.positions, device=call.x.device)
        generator = torch.Generator().manual_seed(self.seed)
        rows = torch.randperm(call.positions, generator=generator)[:count]
        return rows.sort().values.to(call.x.device)

    def full_statistics(self, norm: nn.Module) -> dict[str, Tensor | None] | None:
        """The full model's statistics, where they are not the model's own."""
        return self._norms.get(norm)


class _Watched:
    """One run of one step, whose layers' own tensors are found as they are called.

    Args:
        repair: knows the targets.
        fitted: what its layers have for themselves; added to.
        norms: whether batch normalisations are measured.
    """

    def __init__(self, repair: Repair, fitted: Fitted, *, norms: bool) -> None:
        self.repair = repair
        self.fitted = fitted
        self.norms = norms
        self._landed: Tensor | None = None  # the last result of a solved layer
        self._is_probing = False

    def run(self, step: Step, state: State) -> State:
        """The next state."""
        with using(Own(self.fitted)):
            return step.unit(state, dict(step.choice))

    def note(self, step: Step, state: State) -> State:
        """The next state; the targets of the step's layers are noted that have none yet."""
        seen: list[tuple[Call, Tensor]] = []

        def after(layer: Any, args: Any, kwargs: Any, result: Tensor) -> None:
            call = Call.of(layer, args, kwargs)
            if self.repair.target(layer) is None and self.repair.is_solved(call):
                seen.append((call, result))

        with using(Own(self.fitted)), ExitStack() as stack:
            for layer in _elastic(step):
                hook = layer.register_forward_hook(after, with_kwargs=True)
                stack.callback(hook.remove)
            self._watch_norms(step, stack)
            state = step.unit(state, dict(step.choice))
            for call, result in seen:  # now that normalisations behind them are measured
                self.repair.add_target(call, result, self._scale(call))
        return state

    def solve(self, step: Step, state: State) -> State:
        """The next state, the step's layers solved one after the other."""

        def before(layer: Any, args: Any, kwargs: Any) -> None:
            call = Call.of(layer, args, kwargs)
            if self.repair.is_solved(call):
                self._solve(call)

        def after(layer: Any, args: Any, kwargs: Any, result: Tensor) -> None:
            if layer in self.fitted:
                self._landed = result

        with using(Own(self.fitted)), ExitStack() as stack:
            for layer in _elastic(step):
                stack.callback(layer.register_forward_pre_hook(before, with_kwargs=True).remove)
                stack.callback(layer.register_forward_hook(after, with_kwargs=True).remove)
            self._watch_norms(step, stack)
            return step.unit(state, dict(step.choice))

    def _watch_norms(self, step: Step, stack: ExitStack) -> None:
        for norm in step.unit.modules() if self.norms else ():
            if isinstance(norm, ElasticBatchNorm2d):
                stack.callback(norm.register_forward_pre_hook(self._measure).remove)

    def _measure(self, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Gives a normalisation its input's statistics; the full model's behind a solved layer."""
        x = inputs[0]
        if self._is_probing:
            return
        if x is self._landed:
            self._as_full(norm)
            return
        variance, mean = torch.var_mean(x.float(), dim=(0, 2, 3), correction=0)
        self.fitted[norm] = {"running_mean": mean, "running_var": variance}

    def _as_full(self, norm: Any) -> None:
        found = self.repair.full_statistics(norm)
        if found is not None:
            self.fitted[norm] = found

    def _solve(self, call: Call) -> None:
        """Gives a layer the weights with which its result lands nearest to the full model's."""
        target = self.repair.target(call.layer)
        if target is None or target.positions != call.positions:  # images of another size
            return
        if call.onto is not None:
            self._as_full(call.onto.through)
        scale = self._scale(call)
        weight, bias = call.layer.operands(call.kept, call.outputs)  # type: ignore[arg-type]
        rows, inputs = target.rows, call.inputs(target.rows)
        lands = inputs @ weight.flatten(1).T.float()
        if bias is not None:
            lands = lands + bias
        gap = target.stream[:, : call.outputs] - lands * scale
        if call.onto is not None:
            gap -= call.at(call.onto.stream(), rows)
        delta, shift = regress(inputs, gap, target.held)
        inverse = torch.where(scale.abs() > TINY * scale.abs().max(), 1 / scale, 0)
        solved = weight + (delta * inverse[:, None]).view_as(weight).to(weight)
        moved = shift * inverse
        self.fitted[call.layer] = {
            "weight": solved,
            "bias": (moved if bias is None else bias + moved).to(weight),
        }

    def _scale(self, call: Call) -> Tensor:
        self._is_probing = True
        try:
            return call.scale()
        finally:
            self._is_probing = False


def _tree(model: ElasticModel, paths: Sequence[Mapping[str, Value]]) -> PrefixTree:
    """The steps of canonical paths, with nothing of their own."""
    nothing = {ExecutionPath(path): PathTensors(ExecutionPath(path), {}) for path in paths}
    return PrefixTree(model, paths, own=nothing)


def _elastic(step: Step) -> list[ElasticLinear | ElasticConv2d]:
    return [m for m in step.unit.modules() if isinstance(m, ElasticLinear | ElasticConv2d)]
