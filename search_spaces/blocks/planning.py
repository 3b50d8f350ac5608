"""What a model's units may do, found by tracing, and tried before it is offered."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map

from paretopath.elastic.channels import permute
from search_spaces.blocks.cutting import Piece, Traced
from search_spaces.blocks.groups import Group, find_groups
from search_spaces.blocks.layers import narrowed
from search_spaces.blocks.residual import adds_to_its_input
from search_spaces.blocks.unit import channel_group, make_elastic
from search_spaces.blocks.weighing import Weights


@dataclass(frozen=True)
class UnitPlan:
    """What a unit may do.

    Attributes:
        piece: the part of the model that it runs.
        groups: the channels that its decision narrows.
        can_skip: whether it adds to its input, and so may be left out.
    """

    piece: Piece
    groups: tuple[Group, ...]
    can_skip: bool


@dataclass(frozen=True)
class Plan:
    """A model's units, and what could not be found.

    Attributes:
        units: in the order in which they run.
        left: for each module, or layer, that keeps its form though it might not have to: why.
        classifier: the layer that runs last.
        output: what the model gives for the example.
    """

    units: tuple[UnitPlan, ...]
    left: Mapping[str, str]
    classifier: str
    output: Any


def plan(model: nn.Module, images: Tensor) -> Plan:
    """Looks at a model.

    Args:
        model: in evaluation mode; on the meta device nothing can be tried, and the graph is
            believed.
        images: (B, C, Y, X), an example.
    """
    weights = Weights(model, images)
    traced = Traced(model, images, weights)
    left = {name or "model": f"can't be traced ({said})" for name, said in traced.whole.items()}
    breaks: set[str] = set()
    for piece, body, state in _run(model, traced.pieces(), images):
        if piece.block is None:
            breaks |= _breaks(piece, find_groups(body, state).groups)
    units = []
    for piece, body, state in _run(model, traced.pieces(breaks), images):
        found = find_groups(body, state)
        groups, wrong = _tried(body, _without_gates(found.groups), state)
        if any(weights.calls[layer] > 1 for group in groups for layer in group.makers):
            groups, wrong = (), {piece.name: "it runs more than once"}
        left |= {name or piece.name: why for name, why in {**found.left, **wrong}.items()}
        place = piece.replaces if piece.block is not None else None
        can_skip = place is not None and adds_to_its_input(body, state, place)
        units.append(UnitPlan(piece, groups, can_skip))
    return Plan(tuple(units), left, weights.last(), weights.output)


def _run(
    model: nn.Module, pieces: Sequence[Piece], images: Tensor
) -> Iterator[tuple[Piece, fx.GraphModule, Any]]:
    """Each piece with its modules and the state that reaches it."""
    state: Any = images
    for piece in pieces:
        body = fx.GraphModule(model, piece.graph).eval()
        yield piece, body, state
        with torch.no_grad():
            state = body(state)


def _breaks(piece: Piece, groups: Sequence[Group]) -> set[str]:
    """Nodes before which to cut what lies between blocks, so that a unit has few groups.

    A group that begins after another one has ended can be in a unit of its own.
    """
    places = [
        sorted(_place(piece, layer) for layer in (*group.makers, *(s.layer for s in group.readers)))
        for group in groups
    ]
    breaks, end = set(), -1
    for first, *_, last in sorted(places):
        if first > end:
            if end >= 0:
                breaks.add(piece.calls[first][0])
            end = last
    return breaks


def _place(piece: Piece, layer: str) -> int:
    """The call of a piece inside which a layer runs."""
    for i, (_, module) in enumerate(piece.calls):
        if f"{layer}.".startswith(f"{module}." if module else ""):
            return i
    raise ValueError(f"{layer} does not run in {piece.name}")


def _without_gates(groups: Sequence[Group]) -> tuple[Group, ...]:
    """The groups but those that only gate others: squeeze-excitation keeps its width.

    A gate reads a group's channels, and all that it makes is factors for the same ones.
    """
    return tuple(
        group
        for group in groups
        if not any(
            set(group.makers) & {span.layer for span in other.readers}
            and {span.layer for span in group.readers} <= set(other.makers)
            for other in groups
        )
    )


def _tried(
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
