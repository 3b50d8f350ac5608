"""Channels that span units, such as those of a residual stream: found, tried, told to each unit.

Every unit between the first and the last one that touches them depends on how many are kept; each
is told of its own layers alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from search_spaces.blocks.groups import find_groups
from search_spaces.blocks.planning import Plan
from search_spaces.blocks.spans import Group
from search_spaces.blocks.trials import tried


@dataclass(frozen=True)
class Stream:
    """Channels that span units.

    Attributes:
        whole: the group, by names of the model's layers.
        parts: for each unit that depends on it, by its name, the part that lies in it; layers of
            other units are left out, so it may be empty.
    """

    whole: Group
    parts: Mapping[str, Group]


def find_streams(
    model: nn.Module, images: Tensor, plan: Plan
) -> tuple[tuple[Stream, ...], dict[str, str]]:
    """The channels of a model that span units and can be narrowed, and why others can't be.

    Args:
        model: in evaluation mode; on the meta device the graph is believed.
        images: (B, C, Y, X), an example.
        plan: of it.
    """
    found = find_groups(model, images)
    inside = {maker for unit in plan.units for group in unit.groups for maker in group.makers}
    homes = _homes(model, plan)
    spanning = [
        group
        for group in found.groups
        if homes.keys() >= group.layers
        and len({homes[name] for name in group.layers}) > 1
        and not inside & set(group.makers)
    ]
    sound, wrong = tried(model, spanning, images)
    wrong |= {g.name: "it runs more than once" for g in sound if plan.repeated & g.layers}
    names = [unit.piece.name for unit in plan.units]
    streams = tuple(_stream(group, names, homes) for group in sound if group.name not in wrong)
    left = {name: why for name, why in {**found.left, **wrong}.items() if name not in inside}
    return streams, {f"stream of {name or 'the model'}": why for name, why in left.items()}


def _homes(model: nn.Module, plan: Plan) -> dict[str, str]:
    """The unit in which each layer runs; one of those of a layer that runs in several."""
    homes: dict[str, str] = {}
    for unit in plan.units:
        calls = {module for _, module in unit.piece.calls}
        for name, _ in model.named_modules():
            if any(f"{name}.".startswith(f"{call}." if call else "") for call in calls):
                homes[name] = unit.piece.name
    return homes


def _stream(group: Group, names: Sequence[str], homes: Mapping[str, str]) -> Stream:
    places = [names.index(homes[name]) for name in group.layers]
    between = names[min(places) : max(places) + 1]
    return Stream(group, {unit: _part(group, unit, homes) for unit in between})


def _part(group: Group, unit: str, homes: Mapping[str, str]) -> Group:
    def is_here(name: str) -> bool:
        return homes.get(name) == unit

    readers = tuple(
        replace(span, norm=span.norm if span.norm and is_here(span.norm) else None)
        for span in group.readers
        if is_here(span.layer)
    )
    makers = tuple(filter(is_here, group.makers))
    return replace(group, makers=makers, readers=readers, is_part=True)
