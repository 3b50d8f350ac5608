"""Layers whose results are added to a stream, found in autograd's graph.

One side of a sum is a layer's result, scaled and shifted by channel and in another order perhaps;
the other is what some module has seen, or makes of what one has seen, by the time that the layer
runs.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from paretopath.elastic import Onto
from search_spaces.blocks.heads import HeadwiseLinear
from search_spaces.blocks.layers import BlockConv2d, BlockLinear, can_be_narrowed
from search_spaces.blocks.steps import Calls, Result, before, kind, sums
from search_spaces.blocks.streams import Writer


def find_writers(body: nn.Module, calls: Calls, out: Any, images: int) -> tuple[Writer, ...]:
    """The layers of a body that write into a stream: of each sum the one that is called first.

    Args:
        body: that ran, with no scale at zero.
        calls: of its modules.
        out: what it gave.
        images: on which it ran.
    """
    search = _Search(body, calls, images)
    turns = {name: turn for turn, name in enumerate(calls.took)}
    found: dict[str, Writer] = {}
    for step in sums(out):
        a, b = before(step)
        sides = (search.writer(a, b), search.writer(b, a))
        writers = [writer for writer in sides if writer is not None]
        if writers:
            first = min(writers, key=lambda writer: turns[writer.layer])
            found.setdefault(first.layer, first)
    return tuple(found.values())


class _Search:
    """Looks for the layer that writes, and the stream; see :func:`find_writers`."""

    def __init__(self, body: nn.Module, calls: Calls, images: int) -> None:
        self._body = body
        self._calls = calls
        self._images = images
        self._parameters = {parameter: name for name, parameter in body.named_parameters()}
        self._layers: dict[Result, str] = {}
        self._norms: dict[Result, str] = {}
        for name, passed in calls.gave.items():
            module = body.get_submodule(name)
            if name in calls.took and _can_be_solved(module):
                self._layers[passed.result] = name
            elif name in calls.took and isinstance(module, nn.BatchNorm2d):
                self._norms[passed.result] = name

    def writer(self, side: Result, other: Result) -> Writer | None:
        """The layer that makes one side of a sum, if the other is a stream by then."""
        result, norm, factors = side, None, list[str]()
        while result not in self._layers:
            if norm is None and result in self._norms:
                norm = self._norms[result]
                result = self._calls.took[norm].result
                continue
            made_of = before(result[0])
            if kind(result[0]) == "Mul" and len(made_of) == 2:
                names = [self._parameter(step) for step, _ in made_of]
                factors += [name for name in names if name is not None]
                made_of = [one for one, name in zip(made_of, names, strict=True) if name is None]
            if len(made_of) != 1:
                return None
            (result,) = made_of
        layer = self._layers[result]
        stream = self._stream(layer, other)
        if stream is None:
            return None
        seen, by, shape = stream
        return self._laid_out(Writer(layer, seen, by, norm, tuple(factors)), side, shape)

    def _parameter(self, step: Any) -> str | None:
        """The parameter that a step gives, in another shape perhaps."""
        while not hasattr(step, "variable"):
            made_of = before(step)
            if len(made_of) != 1:
                return None
            ((step, _),) = made_of
        return self._parameters.get(step.variable)

    def _stream(self, layer: str, result: Result) -> tuple[str, str | None, torch.Size] | None:
        """The module that sees a tensor before a layer runs, or sees what another one makes it of;
        that one; and the tensor's shape.
        """
        seen: dict[Result, str] = {}
        for name, passed in self._calls.took.items():
            if name == layer:
                break
            seen.setdefault(passed.result, name)
        if result in seen:
            return seen[result], None, self._calls.took[seen[result]].shape
        for by, passed in self._calls.gave.items():
            took = self._calls.took.get(by)
            if passed.result == result and took is not None and took.result in seen:
                return seen[took.result], by, passed.shape
        return None

    def _laid_out(self, writer: Writer, side: Result, shape: torch.Size) -> Writer | None:
        """A layer with the order of its result in the stream; None if the result comes there in
        another way than its norm and factors say.

        The gradient of a stream of ones says how each number of the result is scaled, that of a
        stream of numbers where it comes to lie.

        Args:
            writer: the layer.
            side: of the sum, that the result makes.
            shape: of the stream.
        """
        numbers = torch.arange(shape.numel(), dtype=torch.float64).view(shape)
        try:
            scales = self._back(writer.layer, side, torch.ones_like(numbers))
            places = self._back(writer.layer, side, numbers)
        except RuntimeError:  # the sum broadcasts, or is of what has been changed in place
            return None
        known = Onto(through=writer.through(self._body)).scale((1, scales.shape[-1]), scales)
        lands = (scales != 0).any(2).any(0)
        index = (places / known).round()
        first = (
            index[:1] + shape.numel() // self._images * torch.arange(self._images)[:, None, None]
        )
        is_so = (
            bool(lands.any())
            and torch.allclose(scales[:, lands], known.expand_as(scales[:, lands]))
            and torch.allclose(places, index * known)
            and torch.equal(index[:, lands], first[:, lands])
        )
        return _placed(writer, index[0].long(), lands, shape, self._images) if is_so else None

    def _back(self, layer: str, side: Result, given: Tensor) -> Tensor:
        """(B, positions, C) the gradient that reaches a layer's result from one side of a sum."""
        edge = GradientEdge(*side, None)
        (found,) = torch.autograd.grad(edge, self._calls.gave[layer].edge, given, retain_graph=True)
        if isinstance(self._body.get_submodule(layer), nn.Conv2d):
            found = found.movedim(1, -1)
        return found.reshape(self._images, -1, found.shape[-1])


def _placed(
    writer: Writer, index: Tensor, lands: Tensor, shape: torch.Size, images: int
) -> Writer | None:
    """A layer with the order of its result; None if that does not keep channels together.

    Args:
        writer: the layer.
        index: (positions, C) where in an image's part of the stream each number comes to lie.
        lands: (positions,) whether it does.
        shape: of the stream.
        images: in it.
    """
    stream = torch.arange(shape.numel() // images)
    for channels in range(1, len(shape)):
        rows = stream.view(-1, *shape[1:]).movedim(channels, -1).flatten(0, -2)
        row = torch.zeros_like(stream).index_copy(0, rows[:, 0], torch.arange(len(rows)))
        order = torch.where(lands, row[index[:, 0]], -1)
        if rows.shape[1] == index.shape[1] and torch.equal(rows[order[lands]], index[lands]):
            is_same = torch.equal(order, torch.arange(len(rows)))
            said = None if is_same else tuple(order.tolist())
            return replace(writer, channels=channels, order=said, positions=len(rows))
    return None


def _can_be_solved(module: nn.Module) -> bool:
    """Whether a layer mixes all of its channels, and has an elastic form."""
    if not isinstance(module, BlockLinear | BlockConv2d) and not can_be_narrowed(module):
        return False
    if isinstance(module, nn.Conv2d):
        return module.groups == 1
    return isinstance(module, nn.Linear) and not isinstance(module, HeadwiseLinear)
