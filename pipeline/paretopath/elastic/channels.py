"""Channels that stand and fall together: which layers make them, which read them, their order."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from paretopath.elastic.layers import ElasticConv2d, ElasticLayer, ElasticLinear


@dataclass(frozen=True)
class Reader:
    """An elastic layer that reads a group of channels.

    Attributes:
        layer: its name inside the unit.
        segment: which part of its concatenated input the channels are.
    """

    layer: str
    segment: int = 0


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of a unit that can be reordered together without changing its function.

    All names are of the elastic unit. An entry is a channel, or several that stay together: an
    attention head. Wherever the channels lie, all of one entry come before those of the next.

    Attributes:
        entries: how many there are to be reordered.
        makers: the layers whose outputs the channels are, normalisations and depthwise convolutions
            between them and the readers included.
        readers: the layers that read them, whose weights can be re-solved.
        tables: parameters that hold something for each entry along their last axis, such as a
            head's position bias.
        stream: a name, where these are a unit's part of channels that span units, such as those of
            a residual stream: groups of one name are only reordered together. None where all of
            the channels are inside the unit.
    """

    entries: int
    makers: tuple[str, ...]
    readers: tuple[Reader, ...] = ()
    tables: tuple[str, ...] = ()
    stream: str | None = None

    def inside(self, part: str) -> Self:
        """The same group as seen from a unit of which ``part`` is the one that declares it."""
        return type(self)(
            self.entries,
            tuple(f"{part}.{maker}" for maker in self.makers),
            tuple(Reader(f"{part}.{reader.layer}", reader.segment) for reader in self.readers),
            tuple(f"{part}.{table}" for table in self.tables),
            self.stream,
        )


class Declaring(Protocol):
    """What declares groups of channels: a unit."""

    def channel_groups(self) -> list[ChannelGroup]:
        """Its groups, and its parts of those that span units."""
        ...


@dataclass(frozen=True)
class Place:
    """A group of channels, or a part of one that spans units, and the unit that declares it."""

    unit: Any
    group: ChannelGroup


def reordered_together(units: Iterable[Declaring]) -> list[list[Place]]:
    """The groups of some units, each with all places that take one order."""
    found: dict[object, list[Place]] = {}
    for unit in units:
        for group in unit.channel_groups():
            place = Place(unit, group)
            found.setdefault(group.stream or place, []).append(place)
    return list(found.values())


def segments(layer: ElasticLayer) -> tuple[int, ...]:
    """The channels of each part of a layer's input at its fullest."""
    if isinstance(layer, ElasticConv2d):
        return layer.segments or (layer.in_channels,)
    return (layer.in_features,)


def reading(unit: nn.Module, reader: Reader) -> ElasticLayer:
    """The layer that a reader names."""
    layer = unit.get_submodule(reader.layer)
    assert isinstance(layer, ElasticLinear | ElasticConv2d), f"{reader.layer} is not elastic"
    return layer


def columns(unit: nn.Module, group: ChannelGroup, reader: Reader) -> Tensor:
    """(entries, width) the input channels of a reading layer that belong to each entry."""
    sizes = segments(reading(unit, reader))
    start = sum(sizes[: reader.segment])
    return torch.arange(start, start + sizes[reader.segment]).reshape(group.entries, -1)


@torch.no_grad()
def permute(unit: nn.Module, group: ChannelGroup, order: Tensor) -> None:
    """Reorders a group's entries in place, the unit's function unchanged.

    Args:
        unit: that declares the group.
        group: of it.
        order: (entries,) old index of each new place, integer.
    """
    for name in group.makers:
        for tensor in _along_outputs(unit.get_submodule(name)):
            tensor.copy_(_reordered(tensor, 0, order))
    for reader in group.readers:
        span = columns(unit, group, reader)
        weight = reading(unit, reader).weight
        part = weight[:, int(span[0, 0]) : int(span[-1, -1]) + 1]
        part.copy_(_reordered(part, 1, order))
    for name in group.tables:
        table = unit.get_parameter(name)
        table.copy_(_reordered(table, table.ndim - 1, order))


def _along_outputs(layer: nn.Module) -> Iterator[Tensor]:
    """The tensors of a layer with its output channels first: not a count of batches."""
    tensors = [*layer.parameters(recurse=False), *layer.buffers(recurse=False)]
    return (tensor for tensor in tensors if tensor.ndim)


def _reordered(tensor: Tensor, axis: int, order: Tensor) -> Tensor:
    """A copy whose blocks along an axis, one for each entry, are put in an order."""
    blocks: Tensor = tensor.unflatten(axis, (len(order), -1))
    return blocks.index_select(axis, order.to(tensor.device)).flatten(axis, axis + 1)
