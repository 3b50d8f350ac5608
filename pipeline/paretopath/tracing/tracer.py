"""Units that run on the meta device, once for each choice and each shape of what reaches them."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_flatten, tree_leaves

from paretopath.elastic import ElasticModel, ElasticSpace, State, Step, Unit
from paretopath.paths import Value
from paretopath.tracing.layer import BITS, KINDS, Kind, Layer, total_macs
from paretopath.tracing.recorder import Recorder, memory_of


@dataclass(frozen=True)
class UnitTrace:
    """What one unit does with one choice.

    Attributes:
        unit: the unit (its weights on the meta device).
        choice: the values of its decisions.
        state: what reached it, meta tensors for a batch of one.
        out: what it leaves.
        layers: its operators in order.
        params: parameters of the plain module that it extracts to.
        peak_elements: what must be kept at once while it runs, see :func:`peak_elements`.
    """

    unit: Unit
    choice: tuple[tuple[str, Value], ...]
    state: State
    out: State
    layers: tuple[Layer, ...]
    params: int
    peak_elements: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return total_macs(self.layers)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all parameters, at :data:`~paretopath.tracing.layer.BITS` each."""
        return math.ceil(self.params * BITS / 8)

    @property
    def activation_bytes(self) -> int:
        """Bytes of :attr:`peak_elements`, at :data:`~paretopath.tracing.layer.BITS` each."""
        return math.ceil(self.peak_elements * BITS / 8)

    def macs_of(self, kind: Kind) -> int:
        """Multiply-accumulates of the operators of one kind."""
        return total_macs([layer for layer in self.layers if layer.kind == kind])

    def params_of(self, kind: Kind) -> int:
        """Parameters of the modules of one kind; positions, tokens and scales are ``other``."""
        return self._params_by_kind[kind]

    def weight_bytes_of(self, kind: Kind) -> int:
        """Bytes of :meth:`params_of`."""
        return math.ceil(self.params_of(kind) * BITS / 8)

    @cached_property
    def _params_by_kind(self) -> dict[Kind, int]:
        counts: dict[Kind, int] = dict.fromkeys(KINDS, 0)
        counted: set[int] = set()  # a parameter that two modules share counts once
        for module in self.unit.extract(dict(self.choice)).modules():
            for parameter in module.parameters(recurse=False):
                if id(parameter) not in counted:
                    counted.add(id(parameter))
                    counts[_kind_of_module(module)] += parameter.numel()
        return counts


def build_on_meta(space: ElasticSpace) -> ElasticModel:
    """The space's model with shapes but no weights."""
    with torch.device("meta"):
        return space.build()


class Tracer:
    """Traces paths of one model; a unit that meets a choice and shapes again is not run again.

    Args:
        model: from :func:`build_on_meta`.

    Attributes:
        images: the state with which every path starts.
    """

    def __init__(self, model: ElasticModel) -> None:
        self.model = model
        self._known: dict[tuple[Step, object], UnitTrace] = {}
        space = model.space
        assert isinstance(space, ElasticSpace)
        self.images: State = torch.empty(1, *space.input_shape, device="meta")

    def __call__(self, path: Mapping[str, Value]) -> list[UnitTrace]:
        """Runs a canonical path on the meta device with a batch of one.

        Returns:
            One trace for each unit that runs, in order.
        """
        state, traces = self.images, []
        for step in self.model.steps(path):
            key = (step, _shapes(state))
            if key not in self._known:
                self._known[key] = _trace(step, state)
            traces.append(self._known[key])
            state = traces[-1].out
        return traces


def _shapes(state: State) -> tuple[object, ...]:
    """What of a state can change what a unit does on the meta device; hashable."""
    leaves, structure = tree_flatten(state)
    memories: list[int] = []  # tensors that share one are told from tensors that don't
    shapes: list[object] = []
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            memories.append(memory_of(leaf))
            shapes.append((leaf.shape, leaf.dtype, memories.index(memories[-1])))
        else:
            shapes.append(leaf)
    return str(structure), *shapes


def signature(state: State) -> str:
    """A name of what of a state can change what a unit does; the same in every process."""
    return hashlib.sha256(repr(_shapes(state)).encode()).hexdigest()[:16]


def trace_units(model: ElasticModel, path: Mapping[str, Value]) -> list[UnitTrace]:
    """What each unit of a canonical path does; see :class:`Tracer`, which is quicker for many."""
    return Tracer(model)(path)


def trace_layers(space: ElasticSpace, path: Mapping[str, Value]) -> list[Layer]:
    """The layers of a path for a batch of one, in the order in which they run."""
    traces = trace_units(build_on_meta(space), space.canonical(path))
    return [layer for trace in traces for layer in trace.layers]


def _trace(step: Step, state: State) -> UnitTrace:
    recorder = Recorder()
    with torch.no_grad():
        with recorder:
            out = step(state)
        static = step.extract()
    params = sum(parameter.numel() for parameter in static.parameters())
    peak = peak_elements(state, out, recorder.written)
    return UnitTrace(step.unit, step.choice, state, out, tuple(recorder.layers), params, peak)


def peak_elements(state: State, out: State, written: Mapping[int, int]) -> int:
    """Elements that must be kept at once while a unit runs, weights not counted: all of the state
    that comes in, all of the state that goes out, and the largest of the other results of its
    operators. What is in several of these, as a feature that is passed on, counts once.

    Args:
        state, out: what comes in and what goes out.
        written: for each result of an operator the identity of its memory, and its elements.
    """
    kept: dict[int, int] = {}
    for leaf in (*tree_leaves(state), *tree_leaves(out)):
        if isinstance(leaf, Tensor):
            memory = memory_of(leaf)
            kept[memory] = max(kept.get(memory, 0), leaf.numel())
    others = (elements for memory, elements in written.items() if memory not in kept)
    return sum(kept.values()) + max(others, default=0)


def _kind_of_module(module: nn.Module) -> Kind:
    if isinstance(module, _ConvNd):
        return "convolution"
    if isinstance(module, nn.Linear):
        return "linear"
    if isinstance(module, _NormBase | nn.LayerNorm | nn.GroupNorm | nn.RMSNorm):
        return "normalisation"
    return "other"
