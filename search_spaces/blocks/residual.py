"""What a block adds to a stream, and whether its own input is one.

Autograd's graph says it. A block that adds to its input may be left out: from the output back to
the input leads a way through a sum, and besides through nothing but activations and other orders
of the same elements.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from search_spaces.blocks.spans import Group
from search_spaces.blocks.steps import Calls, before, is_followed, kind
from search_spaces.blocks.streams import Writer
from search_spaces.blocks.trials import drawn
from search_spaces.blocks.unit import make_elastic
from search_spaces.blocks.writers import find_writers

_PASSED = (
    *("Relu", "Hardtanh", "Hardswish", "Silu", "Gelu", "LeakyRelu"),
    *("View", "UnsafeView", "ReshapeAlias", "Permute", "Transpose", "T", "Clone"),
    *("Unsqueeze", "Squeeze", "Alias", "Add"),
)


def find_sums(
    body: nn.Module, groups: Sequence[Group], state: Any, place: int | None
) -> tuple[bool, tuple[Writer, ...]]:
    """Whether a piece adds to its input, and its layers whose results are added to a stream.

    It runs a copy: some modules keep what they computed, and autograd's graph with it. Its weights
    are drawn anew, so that no scale is zero; on the meta device no layer is found.

    Args:
        body: of the piece.
        groups: its channels that can be narrowed.
        state: an example that reaches it; a tensor, or a tuple of several, batches first.
        place: the tensor of the state that it replaces; None if it does more.
    """
    body = copy.deepcopy(body)
    make_elastic(body, groups)
    tensors = [leaf for leaf in tree_leaves(state) if isinstance(leaf, Tensor)]
    has_numbers = not any(tensor.is_meta for tensor in tensors)
    if has_numbers:
        body, state = drawn(body, state)
    for parameter in body.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    parts = [_followed(part) for part in (state if isinstance(state, tuple) else [state])]
    with torch.enable_grad(), Calls(body) as calls:
        given = [part.clone() if is_followed(part) else part for part in parts]
        out = body(tuple(given) if isinstance(state, tuple) else given[0])
    writers = find_writers(body, calls, out, len(tensors[0])) if has_numbers else ()
    if place is None:
        return False, writers
    x, y = parts[place], out[place] if isinstance(state, tuple) else out
    is_alike = is_followed(x) and is_followed(y) and y.shape == x.shape
    return is_alike and _adds(y.grad_fn, x), writers


def _followed(part: Any) -> Any:
    """A tensor as autograd follows it; other things as they are."""
    has_gradient = isinstance(part, Tensor) and part.is_floating_point()
    return part.detach().requires_grad_() if has_gradient else part


def _adds(step: Any, x: Tensor) -> bool:
    """Whether a way leads from a step of autograd's graph back to x, and through a sum."""
    pending, known = [(step, False)], set[tuple[Any, bool]]()
    while pending:
        step, is_added = pending.pop()
        if is_added and getattr(step, "variable", None) is x:
            return True
        if kind(step) in _PASSED and (step, is_added) not in known:
            known.add((step, is_added))
            pending += [(one, is_added or kind(step) == "Add") for one, _ in before(step)]
    return False
