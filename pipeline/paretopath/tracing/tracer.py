"""Units that run on the meta device, once for each choice and each shape of what reaches them."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from paretopath.elastic import ElasticModel, ElasticSpace, State, Step, Unit
from paretopath.paths import Value
from paretopath.tracing.layer import Layer
from paretopath.tracing.recorder import Recorder


@dataclass(frozen=True)
class UnitTrace:
    """What one unit does with one choice.

    Attributes:
        unit: the unit (its weights on the meta device).
        choice: the values of its decisions.
        state: what reached it, meta tensors for a batch of one.
        layers: its operators in order.
        params: parameters of the plain module that it extracts to.
    """

    unit: Unit
    choice: tuple[tuple[str, Value], ...]
    state: State
    layers: tuple[Layer, ...]
    params: int


def build_on_meta(space: ElasticSpace) -> ElasticModel:
    """The space's model with shapes but no weights."""
    with torch.device("meta"):
        return space.build()


class Tracer:
    """Traces paths of one model; a unit that meets a choice and shapes again is not run again.

    Args:
        model: from :func:`build_on_meta`.
    """

    def __init__(self, model: ElasticModel) -> None:
        self.model = model
        self._known: dict[tuple[Step, object], tuple[UnitTrace, State]] = {}

    def __call__(self, path: Mapping[str, Value]) -> list[UnitTrace]:
        """Runs a canonical path on the meta device with a batch of one.

        Returns:
            One trace for each unit that runs, in order.
        """
        space = self.model.space
        assert isinstance(space, ElasticSpace)
        state: State = torch.empty(1, *space.input_shape, device="meta")
        traces = []
        for step in self.model.steps(path):
            key = (step, _shapes(state))
            if key not in self._known:
                self._known[key] = _trace(step, state)
            trace, state = self._known[key]
            traces.append(trace)
        return traces


def _shapes(state: State) -> tuple[object, ...]:
    """What of a state can change what a unit does on the meta device; hashable."""
    leaves, structure = tree_flatten(state)
    return str(structure), *((x.shape, x.dtype) if isinstance(x, Tensor) else x for x in leaves)


def trace_units(model: ElasticModel, path: Mapping[str, Value]) -> list[UnitTrace]:
    """What each unit of a canonical path does; see :class:`Tracer`, which is quicker for many."""
    return Tracer(model)(path)


def trace_layers(space: ElasticSpace, path: Mapping[str, Value]) -> list[Layer]:
    """The layers of a path for a batch of one, in the order in which they run."""
    traces = trace_units(build_on_meta(space), space.canonical(path))
    return [layer for trace in traces for layer in trace.layers]


def _trace(step: Step, state: State) -> tuple[UnitTrace, State]:
    recorder = Recorder()
    with torch.no_grad():
        with recorder:
            out = step(state)
        static = step.extract()
    params = sum(parameter.numel() for parameter in static.parameters())
    return UnitTrace(step.unit, step.choice, state, tuple(recorder.layers), params), out
