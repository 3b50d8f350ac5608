"""Autograd's graph of a body that ran: its steps, and which tensors its modules took and gave."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils._pytree import tree_leaves

Result = tuple[Any, int]
"""A step, and which of its results."""


def is_followed(value: Any) -> bool:
    """Whether autograd follows a value."""
    return isinstance(value, Tensor) and value.requires_grad


def kind(step: Any) -> str:
    """What a step does, by autograd's name of it."""
    return type(step).__name__.rstrip("0123456789").removesuffix("Backward")


def before(step: Any) -> list[Result]:
    """What a step was computed from, as far as autograd follows it."""
    return [result for result in step.next_functions if result[0] is not None]


def sums(out: Any) -> Iterator[Any]:
    """The steps on the way to an output that add two tensors."""
    pending = [leaf.grad_fn for leaf in tree_leaves(out) if is_followed(leaf)]
    known = {None}
    while pending:
        step = pending.pop()
        if step in known:
            continue
        known.add(step)
        if kind(step) == "Add" and len(before(step)) == 2:
            yield step
        pending += [one for one, _ in before(step)]


@dataclass(frozen=True)
class Passed:
    """A tensor that went into a module, or came out of it."""

    edge: GradientEdge
    shape: torch.Size

    @classmethod
    def of(cls, tensor: Tensor) -> Self:
        """As it is now: it may be changed in place later."""
        return cls(get_gradient_edge(tensor), tensor.shape)

    @property
    def result(self) -> Result:
        """What gave it."""
        return self.edge.node, self.edge.output_nr


class Calls:
    """Watches a body's modules while it runs inside the block.

    Attributes:
        took: first inputs, by the name of a module that runs once, in the order of the calls.
        gave: results, alike.
    """

    def __init__(self, body: nn.Module) -> None:
        self.took: dict[str, Passed] = {}
        self.gave: dict[str, Passed] = {}
        self._body = body
        self._again: set[str] = set()

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        for name, module in self._body.named_modules():
            self._watch(name, module)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()
        for name in self._again:
            self.took.pop(name, None)
            self.gave.pop(name, None)

    def _watch(self, name: str, module: nn.Module) -> None:
        def enter(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if name in self.took:
                self._again.add(name)
            if inputs and is_followed(inputs[0]):
                self.took[name] = Passed.of(inputs[0])

        def leave(module: nn.Module, inputs: Any, result: Any) -> None:
            if is_followed(result):
                self.gave[name] = Passed.of(result)

        self._stack.callback(module.register_forward_pre_hook(enter).remove)
        self._stack.callback(module.register_forward_hook(leave).remove)
