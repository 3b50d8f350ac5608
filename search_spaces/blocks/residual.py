"""Whether a block adds to its input, so that leaving it out passes the input on.

Autograd's graph says it: from the output back to the input through a sum, and besides through
nothing but activations and other orders of the same elements.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

_PASSED = (
    *("Relu", "Hardtanh", "Hardswish", "Silu", "Gelu", "LeakyRelu"),
    *("View", "UnsafeView", "ReshapeAlias", "Permute", "Transpose", "T", "Clone"),
    *("Unsqueeze", "Squeeze", "Alias", "Add"),
)


@dataclass(frozen=True)
class Sum:
    """The sum of a block's input and what the block adds to it.

    Attributes:
        place: of the input among the tensors of the state.
        layer: the convolution whose result is added to the input as it came; None if it is not a
            convolution, or other sums lie between.
        norm: the batch normalisation that the result passes before; None if none.
    """

    place: int
    layer: str | None = None
    norm: str | None = None

    def renamed(self, name: Callable[[str], str]) -> "Sum":
        """The same sum in a block whose layers have other names."""
        layer, norm = (n if n is None else name(n) for n in (self.layer, self.norm))
        return Sum(self.place, layer, norm)


def sum_of(body: nn.Module, state: Any, place: int) -> Sum | None:
    """The sum that makes a piece's output from its input; None if there is none.

    It runs a copy: some modules keep what they computed, and autograd's graph with it.

    Args:
        body: of the piece.
        state: an example that reaches it; a tensor, or a tuple of several.
        place: the tensor of the state that it replaces.
    """
    parts = list(state) if isinstance(state, tuple) else [state]
    if not isinstance(parts[place], Tensor) or not parts[place].is_floating_point():
        return None
    body = copy.deepcopy(body)
    x = parts[place] = parts[place].detach().requires_grad_()
    with torch.enable_grad():
        out = body(tuple(parts) if isinstance(state, tuple) else x)
    y = out[place] if isinstance(state, tuple) else out
    if not isinstance(y, Tensor) or y.shape != x.shape or y.grad_fn is None:
        return None
    sums = _sums_on_the_way(y.grad_fn, x)
    if sums is None:
        return None
    if len(sums) > 1:
        return Sum(place)
    names = {parameter: name.rpartition(".")[0] for name, parameter in body.named_parameters()}
    return Sum(place, *_writer(sums[0], x, names))


def _sums_on_the_way(function: Any, x: Tensor) -> list[Any] | None:
    """The sums on a way from a step of autograd's graph back to x; None without any."""
    pending: list[tuple[Any, list[Any]]] = [(function, [])]
    seen: list[Any] = []
    while pending:
        step, sums = pending.pop()
        if getattr(step, "variable", None) is x:
            if sums:
                return sums
            continue
        if _kind(step) not in _PASSED or any(step is other for other in seen):
            continue
        seen.append(step)
        after = [*sums, step] if _kind(step) == "Add" else sums
        pending += [(before, after) for before in _before(step)]
    return None


def _writer(added: Any, x: Tensor, names: dict[nn.Parameter, str]) -> tuple[str | None, str | None]:
    """The convolution, and the normalisation behind it, whose result a sum adds to x itself."""
    steps = list(_before(added))
    others = [step for step in steps if getattr(step, "variable", None) is not x]
    if len(others) != 1 or len(steps) != 2:
        return None, None
    step, norm = others[0], None
    if "BatchNorm" in _kind(step):
        norm = _owner(step, names)
        step = next(_before(step))
    if _kind(step) != "Convolution":
        return None, None
    return _owner(step, names), norm


def _owner(step: Any, names: dict[nn.Parameter, str]) -> str | None:
    """The layer whose parameters a step of autograd's graph takes."""
    variables = [getattr(before, "variable", None) for before in _before(step)]
    return next((names[v] for v in variables if isinstance(v, nn.Parameter) and v in names), None)


def _before(step: Any) -> Iterator[Any]:
    return (before for before, _ in step.next_functions if before is not None)


def _kind(step: Any) -> str:
    return type(step).__name__.rstrip("0123456789").removesuffix("Backward")
