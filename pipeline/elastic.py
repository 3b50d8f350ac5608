"""The chain of units that runs any execution path with one set of weights.

An :class:`ElasticModel` is a list of :class:`Unit`. A unit runs where its condition holds, does only what its own
decisions say, and hands its state to the next one. An exit is a unit whose output is the model's; a path ends there.
Nothing is copied when the path changes: elastic layers take views of their weights.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.compensation import Compensation, Operands, prefixes
from pipeline.errors import InvalidPathError, InvalidValueError
from pipeline.paths import Condition, Decision, ExecutionPath, SearchSpace, Value

State = Any  # a tensor, or a pytree of tensors, each with the batch as its first dimension
Choice = Mapping[str, Value]
M = TypeVar("M", bound=nn.Module)


class ElasticLinear(nn.Linear):
    """A linear layer that can run with its first inputs and outputs alone; weights are views.

    With a compensation (see :func:`compensate`) narrower inputs take re-solved weights instead.
    """

    @classmethod
    def of(cls, linear: nn.Linear) -> Self:
        """The elastic form of a linear layer, sharing its parameters."""
        elastic = cls(linear.in_features, linear.out_features, bias=False, device="meta")
        elastic.weight, elastic.bias = linear.weight, linear.bias
        return elastic

    def operands(self, inputs: int, outputs: int) -> Operands:
        """Weight (outputs, inputs) and bias (outputs,) of the narrowed layer, as views."""
        weight, bias = _kept_inputs(self, (inputs,), (self.in_features,))
        return weight[:outputs], bias[:outputs] if bias is not None else None

    def forward(self, x: Tensor, outputs: int | None = None) -> Tensor:
        """(..., inputs) -> (..., outputs); as many inputs as ``x`` has, all outputs by default."""
        return F.linear(x, *self.operands(x.shape[-1], outputs or self.out_features))

    def narrow(self, inputs: int, outputs: int) -> nn.Linear:
        """A plain copy with the first inputs and outputs."""
        weight, bias = self.operands(inputs, outputs)
        plain = nn.Linear(inputs, outputs, bias=bias is not None, device="meta")
        return fill(plain, weight=weight, bias=bias)


class ElasticConv2d(nn.Conv2d):
    """A convolution that can run with its first channels alone: dense, or depthwise.

    With a compensation (see :func:`compensate`) narrower inputs take re-solved weights instead.

    Attributes:
        segments: the channels that each part of a concatenated input has at its fullest; one part if None.
    """

    segments: tuple[int, ...] | None = None

    @classmethod
    def of(cls, conv: nn.Conv2d) -> Self:
        """The elastic form of a convolution, sharing its parameters."""
        if conv.groups not in (1, conv.in_channels) or conv.padding_mode != "zeros":
            raise InvalidValueError(
                f"an elastic convolution must be dense or depthwise with zero padding, "
                f"but got groups={conv.groups}, padding_mode={conv.padding_mode!r}"
            )
        elastic = cls(
            conv.in_channels,
            conv.out_channels,
            _pair(conv.kernel_size),
            stride=_pair(conv.stride),
            padding=conv.padding if isinstance(conv.padding, str) else _pair(conv.padding),
            dilation=_pair(conv.dilation),
            groups=conv.groups,
            bias=False,
            device="meta",
        )
        elastic.weight, elastic.bias = conv.weight, conv.bias
        return elastic

    def operands(self, inputs: int | Sequence[int], outputs: int) -> Operands:
        """Weight (outputs, inputs / groups, FY, FX) and bias (outputs,) of the narrowed layer.

        Views, where the input is one part without compensation.

        Args:
            inputs: the first channels that are kept, or how many of each segment.
            outputs: the first channels that are computed.
        """
        if self.groups > 1:
            return self.weight[:outputs], self.bias[:outputs] if self.bias is not None else None
        kept = (inputs,) if isinstance(inputs, int) else tuple(inputs)
        weight, bias = _kept_inputs(self, kept, self.segments or (self.in_channels,))
        return weight[:outputs], bias[:outputs] if bias is not None else None

    def forward(
        self, x: Tensor, outputs: int | None = None, kept: Sequence[int] | None = None
    ) -> Tensor:
        """(B, inputs, IY, IX) -> (B, outputs, OY, OX); a depthwise one has as many outputs as inputs.

        Args:
            x: the input; where it has several segments, ``kept`` of each, concatenated.
            outputs: all by default.
            kept: the input channels of each segment; needed where there are several.
        """
        inputs = x.shape[1]
        outputs = inputs if self.groups > 1 else outputs or self.out_channels
        weight, bias = self.operands(kept or inputs, outputs)
        groups = inputs if self.groups > 1 else 1
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, groups)

    def narrow(self, inputs: int | Sequence[int], outputs: int) -> nn.Conv2d:
        """A plain copy with the first channels."""
        weight, bias = self.operands(inputs, outputs)
        inputs = inputs if isinstance(inputs, int) else sum(inputs)
        plain = nn.Conv2d(
            inputs,
            outputs,
            _pair(self.kernel_size),
            stride=_pair(self.stride),
            padding=self.padding if isinstance(self.padding, str) else _pair(self.padding),
            dilation=_pair(self.dilation),
            groups=inputs if self.groups > 1 else 1,
            bias=bias is not None,
            device="meta",
        )
        return fill(plain, weight=weight, bias=bias)


class ElasticBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation over the first channels: as many as its input has."""

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> Self:
        """The elastic form of a batch normalisation, sharing its parameters and statistics."""
        elastic = cls(norm.num_features, eps=norm.eps, momentum=norm.momentum, device="meta")
        elastic.weight, elastic.bias = norm.weight, norm.bias
        elastic.running_mean, elastic.running_var = norm.running_mean, norm.running_var
        elastic.num_batches_tracked = norm.num_batches_tracked
        return elastic

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Y, X) -> the same shape."""
        n = x.shape[1]
        assert self.running_mean is not None and self.running_var is not None
        return F.batch_norm(
            x,
            self.running_mean[:n],
            self.running_var[:n],
            self.weight[:n],
            self.bias[:n],
            self.training,
            self.momentum if self.momentum is not None else 0.1,
            self.eps,
        )

    def narrow(self, channels: int) -> nn.BatchNorm2d:
        """A plain copy over the first channels."""
        plain = nn.BatchNorm2d(channels, eps=self.eps, momentum=self.momentum, device="meta")
        assert self.running_mean is not None and self.running_var is not None
        fill(plain, weight=self.weight[:channels], bias=self.bias[:channels])
        plain.running_mean = self.running_mean[:channels].detach().clone()
        plain.running_var = self.running_var[:channels].detach().clone()
        plain.num_batches_tracked = torch.zeros((), dtype=torch.long)
        return plain


ElasticLayer = ElasticLinear | ElasticConv2d


def compensate(layer: ElasticLayer, compensation: Compensation | None) -> None:
    """Gives a layer the moments from which its narrower forms re-solve their weights; None takes them away."""
    layer.add_module("compensation", compensation)


def _kept_inputs(layer: ElasticLayer, kept: tuple[int, ...], segments: tuple[int, ...]) -> Operands:
    """Weight (all outputs, kept inputs, …) and bias; views where the kept inputs are one prefix as it stands."""
    if kept == segments:
        return layer.weight, layer.bias
    compensation = layer._modules.get("compensation")
    if isinstance(compensation, Compensation):
        return compensation.solve(layer.weight, layer.bias, prefixes(kept, segments))
    parts = layer.weight.split(segments, dim=1)
    prefix = [part[:, :k] for part, k in zip(parts, kept, strict=True)]
    return prefix[0] if len(prefix) == 1 else torch.cat(prefix, dim=1), layer.bias


def fill(module: M, **parameters: Tensor | None) -> M:
    """Gives a module contiguous copies of the tensors as its parameters, and returns it."""
    for name, tensor in parameters.items():
        if tensor is not None:
            setattr(module, name, nn.Parameter(tensor.detach().clone().contiguous()))
    return module


def _pair(value: Sequence[int] | int) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of a unit that can be reordered together without changing its function.

    Attributes:
        layer: the layer whose output channels head the group, by its name inside the extracted unit.
        shape: the output channels' structure: (hidden,), or (3, heads, head_dim) for a fused qkv.
        axis: which axis of ``shape`` is reordered; the others stay together.
        consumer: the elastic layer that reads the channels, by its name inside the unit; its weights can be
            re-solved. Empty if there is none such.
        segment: which part of the consumer's concatenated input the channels are.
    """

    layer: str
    shape: tuple[int, ...]
    axis: int = 0
    consumer: str = ""
    segment: int = 0


class Unit(nn.Module, ABC):
    """One step of a forward pass.

    Args:
        name: dotted, unique in its model: ``blocks.3``.
        decisions: the names of the decisions on which its computation depends, the shape of the state that reaches
            it included. It is shown no other.
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
        """A plain module that maps a state as :meth:`forward` does with this choice; weights are copied."""

    def channel_groups(self) -> list[ChannelGroup]:
        """The groups of channels that decisions narrow, to be sorted by importance. None by default."""
        return []

    def permute(self, group: ChannelGroup, order: Tensor) -> None:
        """Reorders a group's channels in place, the unit's function unchanged.

        Args:
            group: one of :meth:`channel_groups`.
            order: (shape[axis],) old index of each new place, integer.
        """
        raise NotImplementedError(
            f"{type(self).__name__} names channel groups but can't permute them"
        )


@dataclass(frozen=True)
class Step:
    """A unit and the values of its decisions on one path."""

    unit: Unit
    choice: tuple[tuple[str, Value], ...]

    def __call__(self, state: State) -> State:
        return self.unit(state, dict(self.choice))


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
        self.activate(space.full)

    @property
    def chain(self) -> list[Unit]:
        """All units in order, those of other paths included."""
        return list(self.units.values())  # type: ignore[arg-type]

    @property
    def path(self) -> ExecutionPath:
        """The active path."""
        return self._path

    def steps(self, path: Mapping[str, Value]) -> tuple[Step, ...]:
        """The units that run on a canonical path, each with its choice; an exit is the last."""
        steps = []
        for unit in self.chain:
            if unit.requires is None or unit.requires.holds(path):
                choice = tuple((name, path[name]) for name in unit.decisions if name in path)
                steps.append(Step(unit, choice))
                if unit.is_exit:
                    break
        return tuple(steps)

    def activate(self, path: Mapping[str, Value]) -> None:
        """Makes ``path`` the one that :meth:`forward` runs. Copies no weights.

        Raises:
            InvalidPathError: the path is not one of the space.
        """
        self._path = self.space.canonical(path)
        self._steps = self.steps(self._path)
        if not self._steps:
            raise InvalidPathError("the path runs no unit")

    @contextmanager
    def active(self, path: Mapping[str, Value]) -> Iterator[Self]:
        """Runs ``path`` inside the block and the path of before after it."""
        before, steps = self._path, self._steps
        self.activate(path)
        try:
            yield self
        finally:
            self._path, self._steps = before, steps

    def forward(self, images: Tensor) -> Any:
        """The output of the active path for images (B, C, Y, X)."""
        state: State = images
        for step in self._steps:
            state = step(state)
        return state

    def extract(self, path: Mapping[str, Value]) -> nn.Module:
        """The static model of one path: plain modules with copies of the weights, same output."""
        static = nn.Sequential()
        for step in self.steps(self.space.canonical(path)):
            static.add_module(
                step.unit.name.replace(".", "_"), step.unit.extract(dict(step.choice))
            )
        return static.train(self.training)


class ElasticSpace(SearchSpace, ABC):
    """A search space that can build its model.

    Args:
        decisions: see :class:`~pipeline.paths.SearchSpace`.
        input_shape: (C, Y, X) of one image.
    """

    def __init__(self, decisions: Sequence[Decision], *, input_shape: tuple[int, int, int]) -> None:
        super().__init__(decisions)
        self.input_shape = input_shape

    @abstractmethod
    def units(self, checkpoint: str | None = None) -> list[Unit]:
        """New units, in order, with random weights or those of a checkpoint of the original library.

        Args:
            checkpoint: a local file or folder, or a hub id; random weights (torch's global generator) if None.
        """

    def build(self, checkpoint: str | None = None) -> ElasticModel:
        """The elastic model, in evaluation mode, its full path active."""
        return ElasticModel(self, self.units(checkpoint)).eval()
