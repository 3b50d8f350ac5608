"""Layers of a block whose results are added to a stream, told what they are added to.

A block's own code runs, so nobody sees its sums. But what a layer's result is added to passed some
module before, as its input: the norm at the head of a branch, or the block itself. Where somebody
watches (:func:`~paretopath.elastic.stream.is_watched`), it is noted there.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from paretopath.elastic import Onto
from paretopath.elastic.stream import is_watched


@dataclass(frozen=True)
class Writer:
    """A layer whose result is added to a stream.

    Attributes:
        layer: a linear layer or a convolution.
        seen: the module whose input is the stream, before the layer runs.
        by: the module that makes the stream of that input, such as a shortcut's; None if none.
        norm: the batch normalisation that the result passes before; None if none.
        factors: parameters by which it is multiplied, with an entry for each channel, or one.
        channels: the dimension of the stream that holds channels.
        order: for each position of the result in an image, the stream's; -1 where it is dropped, as
            padding is. None where they are the same.
        positions: of the stream in an image.
    """

    layer: str
    seen: str
    by: str | None
    norm: str | None
    factors: tuple[str, ...]
    channels: int = -1
    order: tuple[int, ...] | None = None
    positions: int = 0

    def renamed(self, name: Callable[[str], str]) -> "Writer":
        """The same of a block whose layers have other names."""
        by, norm = (n if n is None else name(n) for n in (self.by, self.norm))
        factors = tuple(map(name, self.factors))
        layer, seen = name(self.layer), name(self.seen)
        return replace(self, layer=layer, seen=seen, by=by, norm=norm, factors=factors)

    def through(self, body: nn.Module) -> Callable[[Tensor], Tensor] | None:
        """What the result passes: a map of (1, C) or (1, C, 1, 1); the normalisation alone where
        that is all.
        """
        norm = body.get_submodule(self.norm) if self.norm is not None else None
        if not self.factors:
            return norm
        factors = [body.get_parameter(name) for name in self.factors]

        def pass_on(y: Tensor) -> Tensor:
            out: Tensor = y if norm is None else norm(y)
            for factor in factors:
                out = out * (factor.reshape(y.shape) if factor.numel() > 1 else factor)
            return out

        return pass_on

    def arranged(self, stream: Tensor, images: int, *, first: bool) -> Tensor | None:
        """A stream as the layer's result lies.

        Args:
            stream: of so many images.
            images: how many.
            first: whether channels come right after the batch, as a convolution's do; else last.

        Returns:
            (B, C, positions) or (B, positions, C), zero where the result is dropped; None where the
            stream has other positions than the example.
        """
        rows = stream.movedim(self.channels, -1)
        rows = rows.reshape(images, -1, rows.shape[-1])
        if self.order is not None:
            if rows.shape[1] != self.positions:
                return None
            nowhere = rows.new_zeros(images, 1, rows.shape[-1])
            rows = torch.cat([rows, nowhere], 1)[:, torch.tensor(self.order, device=rows.device)]
        return rows.movedim(-1, 1) if first else rows


@contextmanager
def writing(body: nn.Module, writers: Sequence[Writer], state: Any) -> Iterator[Mapping[str, Onto]]:
    """What the results of layers are added to, by layer, while a body runs inside the block.

    Args:
        body: with the layers.
        writers: those.
        state: that the body gets, batches first.
    """
    onto: dict[str, Onto] = {}
    with ExitStack() as stack:
        if writers and is_watched():
            images = len(next(leaf for leaf in tree_leaves(state) if isinstance(leaf, Tensor)))
            seen = inputs_of(body, {writer.seen for writer in writers}, stack)
            onto = {w.layer: _onto(body, w, seen, images) for w in writers}
        yield onto


def inputs_of(body: nn.Module, names: set[str], stack: ExitStack) -> Mapping[str, Tensor]:
    """The inputs of some modules by name, filled as they run, until the stack is closed."""
    seen: dict[str, Tensor] = {}
    for name in names:

        def note(module: nn.Module, inputs: tuple[Any, ...], name: str = name) -> None:
            seen[name] = inputs[0]

        stack.callback(body.get_submodule(name).register_forward_pre_hook(note).remove)
    return seen


def _onto(body: nn.Module, writer: Writer, seen: Mapping[str, Tensor], images: int) -> Onto:
    first = isinstance(body.get_submodule(writer.layer), nn.Conv2d)

    def stream() -> Tensor | None:
        found = seen[writer.seen]
        if writer.by is not None:
            found = body.get_submodule(writer.by)(found)
        return writer.arranged(found, images, first=first)

    return Onto(stream, writer.through(body))
