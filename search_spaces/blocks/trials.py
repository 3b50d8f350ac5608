"""Groups of channels tried: what a graph says of them must hold when they are narrowed."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from paretopath.elastic.channels import permute
from search_spaces.blocks.layers import narrowed
from search_spaces.blocks.spans import Group
from search_spaces.blocks.unit import channel_group, make_elastic


def tried(
    body: nn.Module, groups: Sequence[Group], state: Any
) -> tuple[tuple[Group, ...], dict[str, str]]:
    """The groups that hold what the graph says, and why the others don't.

    Elastic layers must change nothing, nor reordering a group's channels, and narrowing it not the
    output's shape. The weights are drawn anew, so that none hides a mistake: a scale that is zero,
    say.
    """
    if not groups:
        return (), {}
    copied = copy.deepcopy(body)
    has_numbers = not any(t.is_meta for t in copied.parameters())
    if has_numbers:
        copied, state = drawn(copied, state)
    with torch.no_grad():
        original = copied(state)
        make_elastic(copied, groups)
        wrong = _narrowed(copied, groups, state)
        sound = [group for group in groups if group.name not in wrong]
        if sound and has_numbers:
            wrong |= _reordered(copied, sound, state, original)
    return tuple(group for group in sound if group.name not in wrong), wrong


def _narrowed(body: nn.Module, groups: Sequence[Group], state: Any) -> dict[str, str]:
    """The groups that can't be narrowed, and why."""
    body, state = _on_meta(body, state)
    try:
        expected = body(state)
    except Exception as error:  # an elastic layer that does not take what the original does
        return {group.name: f"does not run ({_first_line(error)})" for group in groups}
    found = {group.name: _narrows(body, group, state, expected) for group in groups}
    return {name: why for name, why in found.items() if why}


def _on_meta(body: nn.Module, state: Any) -> tuple[nn.Module, Any]:
    """Both on the meta device, where shapes cost nothing, unless the body needs numbers to run."""
    shadow = copy.deepcopy(body).to("meta")
    shape = tree_map(lambda leaf: leaf.to("meta") if isinstance(leaf, Tensor) else leaf, state)
    try:
        shadow(shape)
    except Exception:  # whatever a model's code does with a tensor that has no numbers
        return body, state
    return shadow, shape


def _narrows(body: nn.Module, group: Group, state: Any, expected: Any) -> str:
    """Why a group can't be narrowed; empty if it can."""
    try:
        with narrowed({group.name: max(1, group.entries // 2)}):
            found = body(state)
    except Exception as error:  # whatever a model's code does with another number of channels
        return f"does not run narrowed ({_first_line(error)})"
    pairs = zip(tree_leaves(found), tree_leaves(expected), strict=True)
    is_same = all(getattr(a, "shape", a) == getattr(b, "shape", b) for a, b in pairs)
    return "" if is_same else "narrowed, it gives another shape"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def _reordered(
    body: nn.Module, groups: Sequence[Group], state: Any, original: Any
) -> dict[str, str]:
    """The groups whose channels can't be reordered, and why: all at once, each alone if that fails.

    Leaves the body as it was.
    """
    if not _alike(body(state), original):
        return {group.name: "it reads weights of its layers past them" for group in groups}
    if _stays(body, groups, state, original):
        return {}
    why = "its channels can't be reordered without changing what comes out"
    return {g.name: why for g in groups if not _stays(body, [g], state, original)}


def _stays(body: nn.Module, groups: Sequence[Group], state: Any, expected: Any) -> bool:
    """Whether reordering the channels of groups changes nothing of what comes out."""
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(group.entries, generator=generator) for group in groups]
    for group, order in zip(groups, orders, strict=True):
        permute(body, channel_group(body, group), order)
    found = body(state)
    for group, order in zip(groups, orders, strict=True):
        permute(body, channel_group(body, group), torch.argsort(order))
    return _alike(found, expected)


def _alike(found: Any, expected: Any) -> bool:
    """Whether two outputs are equal but for rounding."""
    pairs = zip(tree_leaves(found), tree_leaves(expected), strict=True)
    return all(
        torch.allclose(a, b, rtol=1e-6, atol=1e-6 * float(b.abs().max()))
        for a, b in pairs
        if isinstance(a, Tensor) and a.is_floating_point()
    )


def drawn(body: nn.Module, state: Any) -> tuple[nn.Module, Any]:
    """A body, changed in place, and its state in float64; its weights drawn anew."""
    body = body.double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in filter(torch.is_floating_point, body.parameters()):
            noise = torch.randn(parameter.shape, generator=generator)  # float32: a quarter the time
            inputs = max(1, parameter[0].numel()) if parameter.ndim else 1
            parameter.add_(noise, alpha=inputs**-0.5)
    return body, tree_map(_double, state)


def _double(leaf: Any) -> Any:
    return leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf
