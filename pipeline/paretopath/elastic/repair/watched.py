"""One run of a step under watch: on the full model, where its layers' results land; on a path, what
its layers have for themselves, found as they run.
"""

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from paretopath.elastic.batch_norm import channel_moments
from paretopath.elastic.layers import ElasticBatchNorm2d, ElasticConv2d, ElasticLinear
from paretopath.elastic.own import Own, using
from paretopath.elastic.repair.regression import regress
from paretopath.elastic.repair.rows import Call
from paretopath.elastic.repair.targets import Targets
from paretopath.elastic.stream import watching
from paretopath.elastic.units import State, Step

TINY = 1e-6
"""A channel whose scale is less, as a share of the largest, is left as it is."""

Fitted = dict[nn.Module, dict[str, Tensor | None]]
"""What layers have for themselves."""


def look(step: Step, state: State, targets: Targets) -> State:
    """The full model's next state; notes where the results of the step's layers land, those that
    have no target yet.
    """

    def after(layer: Any, args: Any, kwargs: Any, result: Tensor) -> None:
        call = Call.of(layer, args, kwargs)
        if targets.wants(call):
            targets.note(call, result, call.scale())

    with watching(solves=False), ExitStack() as stack:
        for layer in _elastic(step):
            hook = layer.register_forward_hook(after, with_kwargs=True)
            stack.callback(hook.remove)
        return step(state)


class Watched:
    """One run of one step, whose layers' own tensors are found as they are called.

    Args:
        targets: where results shall land.
        fitted: what its layers have for themselves; added to.
        norms: whether batch normalisations are measured that no re-solved layer feeds.
    """

    def __init__(self, targets: Targets, fitted: Fitted, *, norms: bool = False) -> None:
        self.targets = targets
        self.fitted = fitted
        self.norms = norms
        self._landed: Tensor | None = None  # the last result of a solved layer
        self._is_probing = False

    def solve(self, step: Step, state: State) -> State:
        """The next state, the step's layers solved one after the other."""

        def before(layer: Any, args: Any, kwargs: Any) -> None:
            call = Call.of(layer, args, kwargs)
            if self.targets.wants(call):
                self._solve(call)

        def after(layer: Any, args: Any, kwargs: Any, result: Tensor) -> None:
            if layer in self.fitted:
                self._landed = result

        with using(Own(self.fitted)), watching(solves=True), ExitStack() as stack:
            for layer in _elastic(step):
                stack.callback(layer.register_forward_pre_hook(before, with_kwargs=True).remove)
                stack.callback(layer.register_forward_hook(after, with_kwargs=True).remove)
            for norm in step.unit.modules() if self.norms else ():
                if isinstance(norm, ElasticBatchNorm2d):
                    stack.callback(norm.register_forward_pre_hook(self._measure).remove)
            return step.unit(state, dict(step.choice))

    def _measure(self, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Gives a normalisation its input's statistics, unless that landed where the full model's
        does.
        """
        x = inputs[0]
        if self._is_probing or x is self._landed:
            return
        mean, variance = channel_moments(x)
        self.fitted[norm] = {"running_mean": mean, "running_var": variance}

    def _solve(self, call: Call) -> None:
        """Gives a layer the weights with which its result lands nearest to the full model's."""
        target = self.targets.of(call)
        if target is None:
            return
        scale = self._scale(call)
        weight, bias = call.layer.operands(call.kept, call.outputs)  # type: ignore[arg-type]
        rows, inputs = target.rows, call.inputs(target.rows)
        lands = inputs @ weight.flatten(1).T.float()
        if bias is not None:
            lands = lands + bias
        gap = target.stream[:, : call.outputs] - lands * scale
        skip = call.skip(rows)
        if skip is not None:
            gap -= skip
        delta, shift = regress(inputs, gap, target.held)
        inverse = torch.where(scale.abs() > TINY * scale.abs().max(), 1 / scale, 0)
        solved = weight + (delta * inverse[:, None]).view_as(weight).to(weight)
        moved = shift * inverse
        if bias is not None:
            moved = bias + moved
        takes_none = bias is None and not (  # a batch norm behind takes a new one in
            call.onto and isinstance(call.onto.through, nn.BatchNorm2d)
        )
        self.fitted[call.layer] = {
            "weight": solved,
            "bias": None if takes_none else moved.to(weight),
        }

    def _scale(self, call: Call) -> Tensor:
        self._is_probing = True
        try:
            return call.scale()
        finally:
            self._is_probing = False


def _elastic(step: Step) -> list[ElasticLinear | ElasticConv2d]:
    return [m for m in step.unit.modules() if isinstance(m, ElasticLinear | ElasticConv2d)]
