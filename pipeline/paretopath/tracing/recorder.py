"""Operators that run, recorded as layers."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from paretopath.tracing.layer import Layer


class Recorder(TorchDispatchMode):
    """Turns each operator that computes into a layer; views and copies are address arithmetic on an
    accelerator.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers: list[Layer] = []
        self.written: dict[int, int] = {}  # memory of each result: its elements
        self._alive: list[Any] = []  # so that no memory's identity is given again

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
        if operator not in _MOVES:
            self._keep(out)
        return out

    def _keep(self, out: Any) -> None:
        result = out[0] if isinstance(out, tuple | list) else out
        if isinstance(result, Tensor):
            self._alive.append(result)
            memory = memory_of(result)
            self.written[memory] = max(self.written.get(memory, 0), result.numel())


def memory_of(tensor: Tensor) -> int:
    """The identity of a tensor's memory, which its views share; of tensors that are alive."""
    return int(tensor.untyped_storage()._cdata)


def _convolution(args: tuple[Any, ...], out: Tensor) -> Layer:
    x, weight, _, stride = args[:4]
    transposed, groups = args[6], args[8]
    if x.ndim == 3:  # along a line
        x, weight, out, stride = x[:, :, None], weight[:, :, None], out[:, :, None], (1, *stride)
    if transposed:  # each pixel gives all of a filter's taps, which are then summed up in place
        return Layer.conv(
            k=groups * weight[0].numel(),
            c=x.shape[1],
            oy=x.shape[2],
            ox=x.shape[3],
            groups=groups,
            batch=x.shape[0],
        )
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


def _bilinear_samples(args: tuple[Any, ...], out: Tensor) -> tuple[int, int]:
    """``grid_sampler``: each result is mixed of four neighbours, wherever its place is."""
    return 4 * out.numel() + args[1].numel(), 8 * out.numel()


def _regions(args: tuple[Any, ...], out: Tensor) -> tuple[int, int]:
    """``roi_align``: each result is the mean of some bilinear samples, 2 x 2 where not said."""
    samples = args[5] ** 2 if len(args) > 5 and args[5] > 0 else 4
    return 4 * samples * out.numel() + args[1].numel(), 9 * samples * out.numel()


def _suppression(args: tuple[Any, ...], out: Tensor) -> tuple[int, int]:
    """``nms``: each box that is kept is compared with all others, ten operations an overlap."""
    boxes, scores = args[:2]
    return boxes.numel() + scores.numel(), 10 * len(boxes) * out.numel()


# Operators that read what their other inputs point at: elements read, and operations.
_GATHERS: dict[str, Callable[[tuple[Any, ...], Tensor], tuple[int, int]]] = {
    "grid_sampler_2d": _bilinear_samples,
    "roi_align": _regions,
    "nms": _suppression,
}


def _pass(operator: str, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Layer:
    read = sum(t.numel() for t in _tensors((args, kwargs)))
    result = out[0] if isinstance(out, tuple | list) else out
    if operator in _GATHERS:
        read, operations = _GATHERS[operator](args, result)
        return Layer(
            "other", reads=read, writes=result.numel(), operations=operations, operator=operator
        )
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
