"""The layers that hardware sees of a path, recorded from the units that really run, on the meta
device.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.flop_counter import flop_registry

from paretopath.elastic import ElasticModel, ElasticSpace, State, Step, Unit
from paretopath.paths import Value

Kind = Literal["convolution", "linear", "matmul", "normalisation", "other"]
KINDS: tuple[Kind, ...] = ("convolution", "linear", "matmul", "normalisation", "other")


@dataclass(frozen=True)
class Layer:
    """One operator as hardware sees it: a loop nest of multiply-accumulates, or a pass over
    elements.

    A linear layer is a 1x1 convolution over its tokens (``oy``); a batched matrix product is a
    grouped one whose weights are activations. Normalisations, activations, additions and resizing
    have no multiply-accumulates; they have ``operations`` and the elements that they read and
    write.

    Attributes:
        kind: the kind of operator.
        b: batch size.
        k, c: output and input channels, over all groups.
        oy, ox: output height and width.
        fy, fx: filter height and width.
        groups: groups of channels that don't mix.
        stride: of the filter, both directions.
        iy, ix: input height and width as stored, without padding.
        reads, writes: elements that a pass reads (weights included) and writes; 0 where loops say
            it.
        operations: arithmetic operations of a pass; 0 where loops say it.
        bits: bits of an element (weights and activations).
        operator: torch's name of the operator.
    """

    kind: Kind
    b: int = 1
    k: int = 1
    c: int = 1
    oy: int = 1
    ox: int = 1
    fy: int = 1
    fx: int = 1
    groups: int = 1
    stride: int = 1
    iy: int = 1
    ix: int = 1
    reads: int = 0
    writes: int = 0
    operations: int = 0
    bits: int = 8
    operator: str = ""

    @classmethod
    def conv(
        cls,
        *,
        k: int,
        c: int,
        oy: int,
        ox: int,
        fy: int = 1,
        fx: int = 1,
        stride: int = 1,
        groups: int = 1,
        batch: int = 1,
        iy: int | None = None,
        ix: int | None = None,
        kind: Kind = "convolution",
        bits: int = 8,
        operator: str = "",
    ) -> Self:
        """A convolution; a linear layer is a 1x1 one over its tokens. Input size from the output's
        if not given.
        """
        return cls(
            kind=kind,
            b=batch,
            k=k,
            c=c,
            oy=oy,
            ox=ox,
            fy=fy,
            fx=fx,
            groups=groups,
            stride=stride,
            iy=iy if iy is not None else (oy - 1) * stride + fy,
            ix=ix if ix is not None else (ox - 1) * stride + fx,
            bits=bits,
            operator=operator,
        )

    @property
    def is_pass(self) -> bool:
        """Whether this is a pass over elements: no multiply-accumulates."""
        return self.kind in ("normalisation", "other")

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        if self.is_pass:
            return 0
        return self.b * self.k * (self.c // self.groups) * self.oy * self.ox * self.fy * self.fx

    @property
    def weight_elements(self) -> int:
        """Elements of the stationary operand: weights, or the second matrix of a product."""
        return 0 if self.is_pass else self.k * (self.c // self.groups) * self.fy * self.fx

    @property
    def input_elements(self) -> int:
        """Elements of the input activations, padding not counted."""
        return self.reads if self.is_pass else self.b * self.c * self.iy * self.ix

    @property
    def output_elements(self) -> int:
        """Elements of the output activations."""
        return self.writes if self.is_pass else self.b * self.k * self.oy * self.ox


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
    recorder = _Recorder()
    with torch.no_grad():
        with recorder:
            out = step(state)
        static = step.unit.extract(dict(step.choice))
    params = sum(parameter.numel() for parameter in static.parameters())
    return UnitTrace(step.unit, step.choice, state, tuple(recorder.layers), params), out


class _Recorder(TorchDispatchMode):
    """Turns each operator that computes into a layer; views and copies are address arithmetic on an
    accelerator.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers: list[Layer] = []

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        shortcut = _SHORTCUTS.get(packet)
        out = shortcut(args) if shortcut else None
        if out is None:
            out = func(*args, **kwargs)
        operator = packet.__name__
        if packet in _CONTRACTIONS:
            layer = _CONTRACTIONS[packet](args, out)
            flops = flop_registry[packet](*args, **kwargs, out_val=out)
            assert layer.macs * 2 == flops, (
                f"{operator}: {layer.macs} macs but torch counts {flops} flops"
            )
            self.layers.append(replace(layer, operator=operator))
        elif packet in flop_registry:
            raise NotImplementedError(
                f"operator {operator} has multiply-accumulates but no loop nest here"
            )
        elif operator not in _MOVES:
            self.layers.append(_pass(operator, args, kwargs, out))
        return out


def _convolution(args: tuple[Any, ...], out: Tensor) -> Layer:
    x, weight, _, stride = args[:4]
    groups = args[8]
    return Layer.conv(
        k=out.shape[1],
        c=x.shape[1],
        oy=out.shape[2],
        ox=out.shape[3],
        fy=weight.shape[2],
        fx=weight.shape[3],
        stride=stride[0],
        groups=groups,
        batch=x.shape[0],
        iy=x.shape[2],
        ix=x.shape[3],
    )


def _linear(args: tuple[Any, ...], out: Tensor) -> Layer:
    x, weight = args[-2:]  # mm(x, w), addmm(bias, x, w)
    return Layer.conv(k=weight.shape[1], c=x.shape[1], oy=x.shape[0], ox=1, kind="linear")


def _matmul(args: tuple[Any, ...], out: Tensor) -> Layer:
    left, right = args[-2:]  # bmm(a, b), baddbmm(bias, a, b): (G, M, C) x (G, C, N)
    groups, rows, inner = left.shape
    return Layer.conv(
        k=groups * right.shape[2], c=groups * inner, oy=rows, ox=1, groups=groups, kind="matmul"
    )


def _batch_norm_output(args: tuple[Any, ...]) -> tuple[Tensor, Tensor, Tensor]:
    x: Tensor = args[0]
    return x.new_empty(x.shape), x.new_empty(0), x.new_empty(0)


def _elementwise_output(args: tuple[Any, ...]) -> Tensor | None:
    x = args[0]
    tensors = [y for y in args if isinstance(y, Tensor)]
    alike = all(y.shape == x.shape and y.dtype == x.dtype for y in tensors)
    return x.new_empty(x.shape) if alike and x.is_contiguous() else None


aten = torch.ops.aten

# The outputs of frequent operators, or None for torch's own rule: that takes milliseconds a call.
_SHORTCUTS: dict[Any, Callable[[tuple[Any, ...]], Any]] = {
    aten.native_batch_norm: _batch_norm_output,
    aten.relu: _elementwise_output,
    aten.add: _elementwise_output,
}

_CONTRACTIONS: dict[Any, Callable[[tuple[Any, ...], Tensor], Layer]] = {
    aten.convolution: _convolution,
    aten.mm: _linear,
    aten.addmm: _linear,
    aten.bmm: _matmul,
    aten.baddbmm: _matmul,
}

# Operators that only rename, allocate or reorder elements. On an accelerator they are the next
# operator's address pattern; `cat` and `clone` write nothing that the operators around them would
# not.
_MOVES = frozenset(
    "_reshape_alias _to_copy _unsafe_view alias arange cat chunk clone contiguous copy_ "
    "detach empty expand flatten full lift_fresh new_empty new_full new_zeros ones permute "
    "pixel_shuffle pixel_unshuffle reshape roll select slice split split_with_sizes squeeze "
    "stack t transpose unbind unfold unsqueeze view zeros zeros_like constant_pad_nd index "
    "im2col scalar_tensor empty_like".split()
)

# Arithmetic operations per element read or written, for operators where it is not one.
_OPERATIONS_PER_OUTPUT = {
    "upsample_bilinear2d": 7,  # four products, three sums
    "_upsample_bilinear2d_aa": 7,
    "native_layer_norm": 8,  # mean, variance, scale, shift
    "native_batch_norm": 2,  # folded scale and shift in evaluation mode
    "_native_batch_norm_legit_no_training": 2,
    "native_group_norm": 8,
    "_softmax": 5,  # maximum, difference, exponential, sum, quotient
    "_safe_softmax": 5,
    "gelu": 8,  # erf by a short polynomial
    "silu": 4,
    "hardswish": 4,
}


def _pass(operator: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Layer:
    read = sum(t.numel() for t in _tensors((args, kwargs)))
    result = out[0] if isinstance(out, tuple | list) else out
    written = result.numel() if isinstance(result, Tensor) else 0
    if "pool" in operator:
        operations = max(read, written)
    else:
        operations = written * _OPERATIONS_PER_OUTPUT.get(operator, 1)
    return Layer(
        kind="normalisation" if "norm" in operator else "other",
        reads=read,
        writes=written,
        operations=operations,
        operator=operator,
    )


def _tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, list | tuple):
        return [t for item in tree for t in _tensors(item)]
    return []


def total_macs(layers: Sequence[Layer]) -> int:
    """Multiply-accumulates of all layers."""
    return sum(layer.macs for layer in layers)


__all__ = [
    "KINDS",
    "Kind",
    "Layer",
    "Tracer",
    "UnitTrace",
    "build_on_meta",
    "total_macs",
    "trace_layers",
    "trace_units",
]
