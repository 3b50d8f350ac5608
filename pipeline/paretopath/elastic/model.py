"""The chain of units that runs any execution path with one set of weights.

An :class:`ElasticModel` is a list of :class:`Unit`. A unit runs where its condition holds, does
only what its own decisions say, and hands its state to the next one. An exit is a unit whose output
is the model's; a path ends there. Nothing is copied when the path changes: elastic layers take
views of their weights.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Self

from torch import Tensor, nn

from paretopath.elastic.channels import ChannelGroup, Reader
from paretopath.elastic.layers import (
    ElasticBatchNorm2d,
    ElasticConv2d,
    ElasticLayer,
    ElasticLinear,
    fill,
)
from paretopath.elastic.own import PathTensors, own_by_unit
from paretopath.elastic.proposal import Proposal
from paretopath.elastic.repair import Repair
from paretopath.elastic.units import Choice, State, Step, Unit
from paretopath.errors import InvalidPathError, InvalidValueError
from paretopath.paths import Decision, ExecutionPath, SearchSpace, Value

__all__ = [
    "ChannelGroup",
    "Choice",
    "ElasticBatchNorm2d",
    "ElasticConv2d",
    "ElasticLayer",
    "ElasticLinear",
    "ElasticModel",
    "ElasticSpace",
    "Reader",
    "State",
    "Step",
    "Unit",
    "fill",
]


class ElasticModel(nn.Module):
    """A chain of units with one set of weights that runs any path of its space in place.

    Args:
        space: the decisions.
        units: in the order in which they run. An exit ends the path on which its condition holds.
    """

    def __init__(self, space: SearchSpace, units: Sequence[Unit]) -> None:
        super().__init__()
        self.space = space
        self.units = nn.ModuleDict({unit.name.replace(".", "_"): unit for unit in units})
        for name, module in self.named_modules():
            if isinstance(module, nn.BatchNorm2d) and not isinstance(module, ElasticBatchNorm2d):
                raise InvalidValueError(
                    f"the batch normalisations of an elastic model must be ElasticBatchNorm2d, so "
                    f"that paths can have their own statistics, but {name!r} is a "
                    f"{type(module).__name__}; ElasticBatchNorm2d.of(it) makes one"
                )
        self._own: Mapping[ExecutionPath, PathTensors] = {}
        self.activate(space.full)

    @property
    def chain(self) -> list[Unit]:
        """All units in order, those of other paths included."""
        return list(self.units.values())  # type: ignore[arg-type]

    @property
    def path(self) -> ExecutionPath:
        """The active path."""
        return self._path

    @property
    def own(self) -> Mapping[ExecutionPath, PathTensors]:
        """What single paths have for themselves: they run, and are extracted, with it.

        Not part of the state dict. Training takes nothing of it: a normalisation that learns
        divides by its batch's variance and updates the model's own statistics.
        """
        return self._own

    @own.setter
    def own(self, own: Mapping[ExecutionPath, PathTensors]) -> None:
        self._own = dict(own)
        self.activate(self._path)

    def steps(self, path: Mapping[str, Value], own: PathTensors | None = None) -> tuple[Step, ...]:
        """The units that run on a canonical path, each with its choice; an exit is the last.

        Args:
            path: canonical.
            own: what the path has for itself; what :attr:`own` has for it if None.
        """
        if own is None and self._own:
            own = self._own.get(ExecutionPath(path))
        parts = own_by_unit(self.units, own.tensors) if own is not None else {}
        steps = []
        for key, unit in zip(self.units, self.chain, strict=True):
            if unit.requires is None or unit.requires.holds(path):
                choice = tuple((name, path[name]) for name in unit.decisions if name in path)
                steps.append(Step(unit, choice, parts.get(key)))
                if unit.is_exit:
                    break
        return tuple(steps)

    def activate(self, path: Mapping[str, Value], own: PathTensors | None = None) -> None:
        """Makes ``path`` the one that :meth:`forward` runs. Copies no weights.

        Args:
            path: any path of the space.
            own: see :meth:`steps`.

        Raises:
            InvalidPathError: the path is not one of the space.
        """
        self._path = self.space.canonical(path)
        self._steps = self.steps(self._path, own)
        if not self._steps:
            raise InvalidPathError("the path runs no unit")

    @contextmanager
    def active(self, path: Mapping[str, Value], own: PathTensors | None = None) -> Iterator[Self]:
        """Runs ``path`` inside the block and the path of before after it; see :meth:`activate`."""
        before = self._path, self._steps
        self.activate(path, own)
        try:
            yield self
        finally:
            self._path, self._steps = before

    def forward(self, images: Tensor) -> Any:
        """The output of the active path for images (B, C, Y, X)."""
        state: State = images
        for step in self._steps:
            state = step(state)
        return state

    def parts(self) -> list["ElasticModel"]:
        """The models that make up this one, around the same units: itself, or those of a family."""
        return [self]

    def extract(
        self,
        path: Mapping[str, Value],
        own: PathTensors | None = None,
        *,
        repair: Tensor | None = None,
    ) -> nn.Module:
        """The static model of one path: plain modules with copies of the weights, same output.

        Args:
            path: any path of the space.
            own: see :meth:`steps`.
            repair: images (N, C, Y, X) on the model's device, without labels, on which the path is
                re-solved first (:class:`~paretopath.elastic.repair.Repair`); a few hundred do.
        """
        path = self.space.canonical(path)
        if repair is not None:
            own = Repair(self, repair)([path]).get(path, own)
        return self._extracted(path, own)

    def _extracted(self, path: ExecutionPath, own: PathTensors | None) -> nn.Module:
        """The static model of a canonical path."""
        static = nn.Sequential()
        for step in self.steps(path, own):
            static.add_module(step.unit.name.replace(".", "_"), step.extract())
        return static.train(self.training)


class ElasticSpace(SearchSpace, ABC):
    """A search space that can build its model.

    Args:
        decisions: see :class:`~paretopath.paths.SearchSpace`.
        input_shape: (C, Y, X) of one image.

    Attributes:
        batch_norm_per_path: whether a path's accuracy means little before its batch-norm statistics
            are measured, since nothing else makes up for narrowed layers.
        left: for each module or layer that keeps its form though it might not have to: why.
    """

    batch_norm_per_path = False
    left: Mapping[str, str] = MappingProxyType({})

    def __init__(self, decisions: Sequence[Decision], *, input_shape: tuple[int, int, int]) -> None:
        super().__init__(decisions)
        self.input_shape = input_shape

    @classmethod
    def propose(cls, model: str, *, classes: int, size: int | None, pixels: int) -> Proposal:
        """What a recipe should say for a model by its name, in a family that knows names.

        Args:
            model: its name.
            classes: that it shall tell apart.
            size: side of the images that it shall get; what suits model and images if None.
            pixels: the shorter side of the images that there are.

        Raises:
            InvalidValueError: no such model, or a family that knows no names.
        """
        raise InvalidValueError(f"{cls.__name__} makes no model of a name alone; got {model!r}")

    @abstractmethod
    def units(self, checkpoint: str | None = None) -> list[Unit]:
        """New units, in order, with random weights or a checkpoint's of the original library.

        Args:
            checkpoint: a local file or folder, or a hub id; random weights (torch's global
                generator) if None.
        """

    whole: "ElasticSpace"

    def around(self, units: Sequence[Unit]) -> ElasticModel:
        """A model of these units. It runs the paths of the whole space, however restricted."""
        return ElasticModel(self.whole, units)

    def build(self, checkpoint: str | Mapping[str, str] | None = None) -> ElasticModel:
        """The elastic model, in evaluation mode, its full path active.

        Args:
            checkpoint: see :meth:`units`; of a family of models, one for each by its name.
        """
        if not (checkpoint is None or isinstance(checkpoint, str)):
            raise InvalidValueError(
                f"weights by name are for a family of models, but the space is one model; "
                f"got {', '.join(checkpoint)}"
            )
        return self.around(self.whole.units(checkpoint)).eval()
