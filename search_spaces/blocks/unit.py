"""A piece of a model as a unit, its layers elastic in place."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from paretopath.elastic import ChannelGroup, Choice, Reader, State, Unit
from paretopath.elastic.layers import absorb_bias
from paretopath.paths import Condition, Value
from search_spaces.blocks.heads import make_headed
from search_spaces.blocks.layers import (
    BlockLayer,
    Part,
    can_be_narrowed,
    elastic,
    inputs,
    narrowed,
    outputs,
)
from search_spaces.blocks.spans import Group
from search_spaces.blocks.streams import Writer, writing

Kept = Mapping[str, Mapping[Value, Mapping[str, int]]]
"""By decision and value: the entries that each group of channels keeps."""


class BlockUnit(Unit):
    """A part of a model's graph, with the original's own modules around its elastic layers.

    Args:
        name: of the piece.
        body: from state to state; its layers are made elastic.
        groups: the channels that decisions narrow, and its parts of those that span units.
        kept: what its decisions do.
        writers: its layers whose results are added to a stream.
        classifiers: its layers that give what the model gives.
        block: the one module that it calls, if it is no more than that from state to state.
        requires: where it runs.
    """

    def __init__(
        self,
        name: str,
        body: nn.Module,
        *,
        groups: Sequence[Group] = (),
        kept: Kept,
        writers: Sequence[Writer] = (),
        classifiers: Sequence[str] = (),
        block: str | None = None,
        requires: Condition | None = None,
    ) -> None:
        super().__init__(name, decisions=tuple(kept), requires=requires)
        make_elastic(body, groups, [*(writer.layer for writer in writers), *classifiers])
        self.body = body
        self.groups = tuple(groups)
        self.kept = {decision: dict(values) for decision, values in kept.items()}
        self.writers = tuple(writers)
        self.block = block

    def forward(self, state: State, choice: Choice) -> State:
        with (
            writing(self.body, self.writers, state) as onto,
            narrowed(entries(self.kept, choice), onto),
        ):
            return self.body(state)

    def extract(self, choice: Choice) -> nn.Module:
        """A copy of the piece with plain layers; of a block alone, in its own class."""
        with narrowed(entries(self.kept, choice)):
            plain = plain_copy(self.body)
        readers = [(span.layer, span.norm) for group in self.groups for span in group.readers]
        for name, behind in (*readers, *((w.layer, w.norm) for w in self.writers)):
            if behind is not None and self.body.get_submodule(name).bias is None:
                layer, norm = plain.get_submodule(name), plain.get_submodule(behind)
                assert isinstance(layer, nn.Conv2d | nn.Linear) and isinstance(norm, nn.BatchNorm2d)
                absorb_bias(layer, norm)  # least squares may give it one
        return plain if self.block is None else plain.get_submodule(self.block)

    def channel_groups(self) -> list[ChannelGroup]:
        return [channel_group(self.body, group).inside("body") for group in self.groups]


def entries(kept: Kept, choice: Choice) -> dict[str, int]:
    """The entries that groups keep by a choice; groups that are not named keep all."""
    found: dict[str, int] = {}
    for decision, value in choice.items():
        found |= kept[decision].get(value, {})
    return found


def plain_copy(body: nn.Module) -> nn.Module:
    """A copy of a body in which what is elastic, whatever has a ``plain``, is as it runs."""
    parts: list[Any] = [part for part in body.modules() if hasattr(part, "plain")]
    return copy.deepcopy(body, {id(part): part.plain() for part in parts})


def make_elastic(body: nn.Module, groups: Sequence[Group], others: Sequence[str] = ()) -> None:
    """Puts elastic layers in the place of a body's layers: those of groups, others that repair may
    solve, and all batch norms.

    What is elastic already stays.
    """
    for group in groups:
        if group.is_heads:
            make_headed(body, group)
    touched = {name for g in groups for name in (*g.makers, *(span.layer for span in g.readers))}
    touched |= set(others)
    for name, module in list(body.named_modules()):
        is_norm = isinstance(module, nn.BatchNorm2d) and can_be_narrowed(module)
        if is_norm or (name in touched and not isinstance(module, BlockLayer)):
            body.set_submodule(name, elastic(module, name))
    for group in groups:
        for name in group.makers:
            layer: Any = body.get_submodule(name)
            layer.makes = Part(outputs(layer), group.name, group.entries)
            if getattr(layer, "groups", 1) > 1:
                layer.reads = (Part(inputs(layer), group.name, group.entries),)
    for name in {span.layer for group in groups for span in group.readers}:
        layer = body.get_submodule(name)
        layer.reads = _parts(name, inputs(layer), groups)
        if len(layer.reads) > 1:
            layer.segments = tuple(part.size for part in layer.reads)


def _parts(layer: str, size: int, groups: Sequence[Group]) -> tuple[Part, ...]:
    """The parts of a layer's input: those of groups, and what lies between them."""
    spans = [(span, group) for group in groups for span in group.readers if span.layer == layer]
    parts, end = [], 0
    for span, group in sorted(spans, key=lambda found: found[0].start):
        if span.start > end:
            parts.append(Part(span.start - end))
        parts.append(Part(span.stop - span.start, group.name, group.entries))
        end = span.stop
    if size > end:
        parts.append(Part(size - end))
    return tuple(parts)


def channel_group(body: nn.Module, group: Group) -> ChannelGroup:
    """A group as the engine knows it, by the names that a body with elastic layers has."""
    readers = []
    for span in group.readers:
        layer: Any = body.get_submodule(span.layer)
        starts = [sum(part.size for part in layer.reads[:i]) for i in range(len(layer.reads))]
        readers.append(Reader(span.layer, starts.index(span.start)))
    stream = group.name if group.is_part else None
    return ChannelGroup(group.entries, group.makers, tuple(readers), group.tables, stream)
