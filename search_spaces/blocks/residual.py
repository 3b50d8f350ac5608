"""Whether a block adds to its input, so that leaving it out passes the input on."""

from typing import Any

import torch
from torch import Tensor, nn

# What may stand between the sum and the output: activations, and other orders of the same elements.
_PASSED = (
    *("Relu", "Hardtanh", "Hardswish", "Silu", "Gelu", "LeakyRelu"),
    *("View", "UnsafeView", "Reshape", "Permute", "Transpose", "T", "Clone", "Unsqueeze"),
    *("Squeeze", "Alias", "AsStrided", "Add"),
)


def adds_to_its_input(body: nn.Module, state: Any, place: int) -> bool:
    """Whether a piece's output is its input plus something, in the same shape.

    Args:
        body: of the piece.
        state: an example that reaches it; a tensor, or a tuple of several.
        place: the tensor of the state that it replaces.
    """
    parts = list(state) if isinstance(state, tuple) else [state]
    if not isinstance(parts[place], Tensor) or not parts[place].is_floating_point():
        return False
    x = parts[place] = parts[place].detach().requires_grad_()
    with torch.enable_grad():
        out = body(tuple(parts) if isinstance(state, tuple) else x)
    y = out[place] if isinstance(state, tuple) else out
    if not isinstance(y, Tensor) or y.shape != x.shape or y.grad_fn is None:
        return False
    return _reaches(y.grad_fn, x)


def _reaches(function: Any, x: Tensor) -> bool:
    """Whether a sum of x with something is what a step of autograd's graph gives."""
    pending, seen = [(function, False)], set()
    while pending:
        step, was_added = pending.pop()
        if getattr(step, "variable", None) is x:
            if was_added:
                return True
            continue
        kind = type(step).__name__.rstrip("0123456789").removesuffix("Backward")
        if (step, was_added) in seen or kind not in _PASSED:
            continue
        seen.add((step, was_added))
        was_added |= kind == "Add"
        pending += [(before, was_added) for before, _ in step.next_functions if before is not None]
    return False
