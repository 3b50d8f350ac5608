"""Channels that are kept or dropped together, by the names of their layers."""

from collections.abc import Callable
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Span:
    """Input channels of a layer: from ``start`` up to ``stop``.

    Attributes:
        norm: the batch normalisation that takes the layer's output, and that alone; None if none.
    """

    layer: str
    start: int
    stop: int
    norm: str | None = None


@dataclass(frozen=True)
class Group:
    """Channels inside a piece that are kept or dropped together.

    Attributes:
        name: of the layer that makes them first.
        entries: how many can be dropped one by one: channels, or groups of a grouped convolution.
        width: channels of an entry.
        makers: layers whose outputs they are.
        readers: the inputs of layers that they are.
        tables: parameters with a column for each entry.
        is_heads: whether they are attention's heads; then it is named as the attention.
        is_part: whether it is a unit's part of channels that span units.
    """

    name: str
    entries: int
    width: int
    makers: tuple[str, ...]
    readers: tuple[Span, ...]
    tables: tuple[str, ...] = ()
    is_heads: bool = False
    is_part: bool = False

    @property
    def layers(self) -> set[str]:
        """Those that make the channels or read them."""
        return {*self.makers, *(span.layer for span in self.readers)}

    def renamed(self, name: Callable[[str], str]) -> "Group":
        """The same group of layers with other names."""
        readers = (
            replace(s, layer=name(s.layer), norm=None if s.norm is None else name(s.norm))
            for s in self.readers
        )
        return replace(
            self,
            name=name(self.name),
            makers=tuple(map(name, self.makers)),
            readers=tuple(readers),
            tables=tuple(map(name, self.tables)),
        )
