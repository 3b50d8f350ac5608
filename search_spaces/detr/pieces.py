"""Units around plain modules: a decision narrows their layers in place.

A piece's body is written as if it were plain; elastic layers stand in it (as in
:mod:`search_spaces.blocks.layers`) and are told their widths beside their input. So one body is
both what an elastic model runs and, copied with plain layers, what is extracted.
"""

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from paretopath.elastic import ChannelGroup, Choice, ElasticLinear, Onto, State, Unit
from paretopath.paths import Condition, Value
from search_spaces.blocks.layers import Part, narrowed
from search_spaces.blocks.spans import Group, Span
from search_spaces.blocks.unit import Kept, channel_group, entries, make_elastic, plain_copy
from search_spaces.detr.states import Maps


class Piece(Unit):
    """A step of a detector.

    Args:
        name: of the unit.
        body: what it does; from state to state.
        groups: the channels that decisions narrow.
        kept: what decisions do; a decision that only changes the shape of what comes in keeps
            nothing.
        rows: groups of rows, which no layer reads.
        lands: layers whose results themselves shall be the full model's, where they are re-solved.
        requires: where it runs.
        is_exit: whether its output is the model's.
    """

    def __init__(
        self,
        name: str,
        body: nn.Module,
        *,
        groups: Sequence[Group] = (),
        kept: Kept | None = None,
        rows: Sequence[ChannelGroup] = (),
        lands: Sequence[str] = (),
        requires: Condition | None = None,
        is_exit: bool = False,
    ) -> None:
        kept = kept or {}
        super().__init__(name, decisions=tuple(kept), requires=requires)
        make_elastic(body, groups)
        self.body = body
        self.groups, self.rows = tuple(groups), tuple(rows)
        self.kept = {decision: dict(values) for decision, values in kept.items()}
        self.lands = {layer: Onto() for layer in lands}
        self.is_exit = is_exit

    def forward(self, state: State, choice: Choice) -> State:
        with narrowed(entries(self.kept, choice), self.lands):
            return self.body(state)

    def extract(self, choice: Choice) -> nn.Module:
        with narrowed(entries(self.kept, choice)):
            return plain_copy(self.body)

    def channel_groups(self) -> list[ChannelGroup]:
        return [
            channel_group(self.body, group).inside("body")
            for group in self.groups
            if group.makers  # others are in the order of what they are made of
        ] + [group.inside("body") for group in self.rows]


class Inside(Unit):
    """A unit of another space that works on the maps of a detector's state.

    Args:
        prefix: before the other unit's name.
        inner: the other unit.
        around: decisions on which the shape of what else the state holds depends.
        learns_norms: whether batch normalisations follow the images that are trained on.
    """

    def __init__(
        self,
        prefix: str,
        inner: Unit,
        *,
        around: Sequence[str] = (),
        learns_norms: bool = True,
    ) -> None:
        requires = inner.requires
        if requires is not None:
            requires = replace(requires, decision=f"{prefix}{requires.decision}")
        own = [f"{prefix}{name}" for name in inner.decisions]
        decisions = tuple(dict.fromkeys([*around, *own]))
        super().__init__(f"{prefix}{inner.name}", decisions=decisions, requires=requires)
        self.prefix = prefix
        self.own = frozenset(own)
        self.inner = inner
        self.learns_norms = learns_norms

    def _inner(self, choice: Choice) -> dict[str, Value]:
        return {n.removeprefix(self.prefix): v for n, v in choice.items() if n in self.own}

    def train(self, mode: bool = True) -> "Inside":
        super().train(mode)
        still_norms(self, self.learns_norms)
        return self

    def forward(self, state: State, choice: Choice) -> State:
        maps = Maps.of(state)
        return replace(maps, x=self.inner(maps.x, self._inner(choice)))

    def extract(self, choice: Choice) -> nn.Module:
        return PlainInside(self.inner.extract(self._inner(choice)), self.learns_norms)

    def channel_groups(self) -> list[ChannelGroup]:
        return [group.inside("inner") for group in self.inner.channel_groups()]


class PlainInside(nn.Module):
    """A module that works on the maps of a detector's state."""

    def __init__(self, inner: nn.Module, learns_norms: bool) -> None:
        super().__init__()
        self.inner = inner
        self.learns_norms = learns_norms

    def train(self, mode: bool = True) -> "PlainInside":
        super().train(mode)
        still_norms(self, self.learns_norms)
        return self

    def forward(self, state: State) -> State:
        maps = Maps.of(state)
        return replace(maps, x=self.inner(maps.x))


def still_norms(module: nn.Module, learns_norms: bool) -> None:
    """Keeps batch normalisations at their statistics in training, where they shall not learn."""
    if not learns_norms:
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.eval()


class Count(nn.Module):
    """A number that a decision may lower; calling it gives the number.

    Args:
        most: the number at its fullest.
        group: by which it is told.
    """

    def __init__(self, most: int, group: str | None = None) -> None:
        super().__init__()
        self.part = Part(most, group, most)

    def forward(self) -> int:
        return self.part.kept()

    def plain(self) -> nn.Module:
        """The number as it is."""
        return Count(self.part.kept())


class Rows(nn.Embedding):
    """An embedding whose first rows are taken, all together.

    Args:
        embedding: whose rows these are.
        group: that tells how many.
    """

    def __init__(self, embedding: nn.Embedding, group: str | None = None) -> None:
        super().__init__(embedding.num_embeddings, embedding.embedding_dim, device="meta")
        self.weight = embedding.weight
        self.part = Part(embedding.num_embeddings, group, embedding.num_embeddings)

    def forward(self) -> Tensor:  # type: ignore[override]
        """(rows, C)."""
        return self.weight[: self.part.kept()]

    def plain(self) -> nn.Module:
        """The rows alone."""
        rows = self.weight[: self.part.kept()].detach().clone()
        return Rows(nn.Embedding.from_pretrained(rows, freeze=False))


def write(layer: nn.Module, x: Tensor, skip: Tensor, keys: Tensor | None = None) -> Tensor:
    """What a layer gives, and, where it is elastic, word of the stream that it will be added to.

    Args:
        layer: linear.
        x: its input.
        skip: the stream.
        keys: see :class:`~paretopath.elastic.Onto`.
    """
    if isinstance(layer, ElasticLinear):
        out: Tensor = layer(x, onto=Onto(skip, keys=keys))
    else:
        out = layer(x)
    return out


def group(name: str, entries: int, width: int, makers: Sequence[str], reader: str) -> Group:
    """Channels that some layers of a body make and one reads, all of its input."""
    return Group(name, entries, width, tuple(makers), (Span(reader, 0, entries * width),))


__all__ = [
    "Count",
    "Inside",
    "Kept",
    "Piece",
    "Rows",
    "group",
    "still_norms",
    "write",
]
