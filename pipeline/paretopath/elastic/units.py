"""Units: the steps of a forward pass, and what a chain of them is.

A unit does only what its own decisions say, and hands its state to the next one.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import nn

from paretopath.elastic.channels import ChannelGroup
from paretopath.elastic.own import Own, PathTensors, using
from paretopath.paths import Condition, SearchSpace, Value

State = Any  # a tensor, or a pytree of tensors, each with the batch as its first dimension
Choice = Mapping[str, Value]


class Unit(nn.Module, ABC):
    """One step of a forward pass.

    Args:
        name: dotted, unique in its model: ``blocks.3``.
        decisions: the names of the decisions on which its computation depends, the shape of the
            state that reaches it included. It is shown no other.
        requires: where the unit runs; on every path if None. Elsewhere the state passes unchanged.
    """

    is_exit = False

    def __init__(
        self, name: str, *, decisions: Sequence[str] = (), requires: Condition | None = None
    ) -> None:
        super().__init__()
        self.name = name
        self.decisions = tuple(decisions)
        self.requires = requires

    @abstractmethod
    def forward(self, state: State, choice: Choice) -> State:
        """The next state.

        Args:
            state: what the unit before gave; the images (B, C, Y, X) for the first unit.
            choice: the values of this unit's decisions, those that matter.
        """

    @abstractmethod
    def extract(self, choice: Choice) -> nn.Module:
        """A plain module that maps a state as :meth:`forward` does here; weights are copied."""

    def channel_groups(self) -> list[ChannelGroup]:
        """The groups of channels that decisions narrow, to be put in order of importance."""
        return []


@dataclass(frozen=True)
class Step:
    """A unit, the values of its decisions on one path, and what its layers own on that path.

    Equal steps give the same for the same state: a prefix tree runs them once.
    """

    unit: Unit
    choice: tuple[tuple[str, Value], ...]
    own: Own | None = None

    def __call__(self, state: State) -> State:
        with using(self.own):
            return self.unit(state, dict(self.choice))

    def extract(self) -> nn.Module:
        """The unit's plain module, with what its layers own."""
        with using(self.own):
            return self.unit.extract(dict(self.choice))


class Chain(Protocol):
    """Units in order, with the space of their decisions: an elastic model, to those who walk it.

    Attributes:
        units: all of them by key, those of other paths included, in order.
    """

    units: nn.ModuleDict

    @property
    def space(self) -> SearchSpace:
        """The decisions."""
        ...

    @property
    def chain(self) -> list[Unit]:
        """All units in order, those of other paths included."""
        ...

    def steps(self, path: Mapping[str, Value], own: PathTensors | None = None) -> tuple[Step, ...]:
        """The units that run on a canonical path, each with its choice; an exit is the last."""
        ...
