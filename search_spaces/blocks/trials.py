"""Groups of channels tried: what a graph says of them must hold when they are narrowed."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from paretopath.elastic.channels import permute
from search_spaces.blocks.groups import Group
from search_spaces.blocks.layers import narrowed
from search_spaces.blocks.unit import channel_group, make_elastic


def tried(
    body: nn.Module, groups: Sequence[Group], state: Any
) -> tuple[tuple[Group, ...], dict[str, str]]:
    """The groups that hold what the graph says, and why the others don't.

    Reordering a group's channels must change nothing, and narrowing it not the output's shape. The
    weights are drawn anew, so that none hides a mistake: a scale that is zero, say.
    """
    if not groups:
        return (), {}
    copied = copy.deepcopy(body)
    make_elastic(copied, groups)
    is_real = not any(t.is_meta for t in copied.parameters())
    if is_real:
        copied, state = _drawn(copied), tree_map(_double, state)
    sound, wrong = [], {}
    with torch.no_grad():
        expected = copied(state)
        for group in groups:
            why = _narrows(copied, group, state, expected)
            if not why and is_real:
                why = _reorders(copied, group, state, expected)
            if why:
                wrong[group.name] = why
            else:
                sound.append(group)
    return tuple(sound), wrong


def _narrows(body: nn.Module, group: Group, state: Any, expected: Any) -> str:
    """Why a group can't be narrowed; empty if it can."""
    try:
        with narrowed({group.name: max(1, group.entries // 2)}):
            found = body(state)
    except Exception as error:  # whatever a model's code does with another number of channels
        return f"does not run narrowed ({(str(error).splitlines() or [''])[0]})"
    pairs = zip(tree_leaves(found), tree_leaves(expected), strict=True)
    is_same = all(getattr(a, "shape", a) == getattr(b, "shape", b) for a, b in pairs)
    return "" if is_same else "narrowed, it gives another shape"


def _reorders(body: nn.Module, group: Group, state: Any, expected: Any) -> str:
    """Why a group's channels can't be reordered; empty if they can. Leaves the body as it was."""
    order = torch.randperm(group.entries, generator=torch.Generator().manual_seed(0))
    permute(body, channel_group(body, group), order)
    found = body(state)
    permute(body, channel_group(body, group), torch.argsort(order))
    pairs = zip(tree_leaves(found), tree_leaves(expected), strict=True)
    is_same = all(
        torch.allclose(a, b, rtol=1e-6, atol=1e-6 * float(b.abs().max()))
        for a, b in pairs
        if isinstance(a, Tensor) and a.is_floating_point()
    )
    return "" if is_same else "its channels can't be reordered without changing what comes out"


def _drawn(body: nn.Module) -> nn.Module:
    """A body in float64 whose weights are drawn anew."""
    body = body.double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in body.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            parameter.add_(noise / max(1, parameter[0].numel()) ** 0.5 if parameter.ndim else noise)
    return body


def _double(leaf: Any) -> Any:
    return leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf
