"""Groups of channels that live inside a piece: those coupled ones that can be narrowed.

A group is taken if it begins and ends inside the piece, so that no other piece knows of it.
"""

import copy
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from search_spaces.blocks.dependencies import Coupled, coupled_channels
from search_spaces.blocks.layers import can_be_narrowed, inputs, outputs
from search_spaces.blocks.spans import Group, Span


@dataclass(frozen=True)
class Found:
    """What a piece's graph shows.

    Attributes:
        groups: that live inside it.
        left: for layers whose channels could be narrowed, by the graph, but are not: the reason.
    """

    groups: tuple[Group, ...]
    left: Mapping[str, str]


def find_groups(body: nn.Module, state: Any, attention: Collection[str] = ()) -> Found:
    """The groups of channels of a piece.

    It runs a copy: some modules keep what they computed, and autograd's graph with it.

    Args:
        body: takes a state and gives the next one.
        state: an example.
        attention: names of modules that hand on their input's shape: they are passed over where
            torch-pruning can't follow the whole.
    """
    if sum(isinstance(module, nn.Conv2d | nn.Linear) for module in body.modules()) < 2:
        return Found((), {})  # channels need a layer that makes them and one that reads them
    body = copy.deepcopy(body)
    left: dict[str, str] = {}
    try:
        found = coupled_channels(body, state, left)
    except Exception as error:  # operators, or reshapes, that torch-pruning does not know
        said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        nothing = Found((), {"": f"torch-pruning can't follow it ({said})"})
        for module in attention:
            body.set_submodule(module, _PassedOn())
        again = find_groups(body, state) if attention else nothing
        return nothing if "" in again.left else again
    modules = dict(body.named_modules())
    groups, taken = [], set[str]()
    for members in _coupled_by_groups(found, modules):
        if not members.might_be_narrowed:
            continue
        reason = _refused(members, modules) or _taken(members, taken)
        name = next(name for name in modules if name in members.makers)
        if reason:
            left[name] = reason
            continue
        groups.append(_group(name, members, modules))
        taken |= set(members.makers)
    return Found(tuple(groups), left)


class _PassedOn(nn.Module):
    """In the place of attention: its input."""

    def forward(self, x: Tensor, *others: Any, **named: Any) -> Tensor:
        return x


def _coupled_by_groups(found: Sequence[Coupled], modules: Mapping[str, nn.Module]) -> list[Coupled]:
    """The groups, those on both sides of a grouped convolution as one."""
    merged = list(found)
    for name, module in modules.items():
        if _is_grouped(module):
            touching = [m for m in merged if any(member.layer == name for member in m.layers)]
            if len(touching) > 1:
                one = Coupled(
                    tuple(member for m in touching for member in m.layers),
                    any(m.in_state for m in touching),
                    tuple(other for m in touching for other in m.others),
                )
                merged = [one if m is touching[0] else m for m in merged if m not in touching[1:]]
    return merged


def _is_grouped(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups > 1


def _refused(members: Coupled, modules: Mapping[str, nn.Module]) -> str:
    """Why a group can't be narrowed; empty if it can."""
    if members.others:
        return f"its channels meet the parameter {members.others[0]}"
    for member in members.layers:
        module = modules[member.layer]
        if not can_be_narrowed(module):
            return f"its channels meet {member.layer}, a {type(module).__name__}"
        first, count = member.channels[0], len(member.channels)
        is_straight = member.channels == tuple(range(first, first + count))
        if not is_straight or member.roots != tuple(sorted(member.roots)):
            return f"its channels come to {member.layer} in another order"
        whole = outputs(module) if member.is_output else inputs(module)
        if count != whole and (member.is_output or not isinstance(module, nn.Conv2d)):
            return f"its channels are a part of those of {member.layer}"
        if count % _entries(members, modules):
            return f"its channels come to {member.layer} in another number"
    return ""


def _taken(members: Coupled, taken: set[str]) -> str:
    both = [maker for maker in members.makers if maker in taken]
    return f"{both[0]} belongs to other channels too" if both else ""


def _entries(members: Coupled, modules: Mapping[str, nn.Module]) -> int:
    """How many of a group's entries can be dropped one by one."""
    counts = [len(member.channels) for member in members.layers if member.is_output]
    for member in members.layers:
        module = modules[member.layer]
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            counts.append(module.groups)
    return math.gcd(*counts)


def _group(name: str, members: Coupled, modules: Mapping[str, nn.Module]) -> Group:
    readers = tuple(
        Span(member.layer, member.channels[0], member.channels[-1] + 1, member.norm)
        for member in members.layers
        if not member.is_output and not _is_grouped(modules[member.layer])
    )
    entries = _entries(members, modules)
    width = outputs(modules[name]) // entries
    return Group(name, entries, width, tuple(members.makers), readers)
