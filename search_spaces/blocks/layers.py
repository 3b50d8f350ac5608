"""Elastic layers that stand in a model's own modules, in place of its layers.

The code around them is the original's and calls them with an input alone. So they are told their
widths beside it: :func:`narrowed` says how many entries of each group of channels are kept, and
each layer knows which groups it reads and makes. What its result is added to is told likewise.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Self

from torch import Tensor, nn

from paretopath.elastic import ElasticBatchNorm2d, ElasticConv2d, ElasticLinear, Onto
from search_spaces.timm_alone import BatchNormAct2d, Conv2dSame, TimmLinear, pad_same


@dataclass(frozen=True)
class _Told:
    kept: Mapping[str, int] = field(default_factory=dict)
    onto: Mapping[str, Onto] = field(default_factory=dict)


_NOTHING = _Told()
_told: ContextVar[_Told] = ContextVar("what layers are told", default=_NOTHING)


@contextmanager
def narrowed(kept: Mapping[str, int], onto: Mapping[str, Onto] | None = None) -> Iterator[None]:
    """Inside the block, in this thread, layers run and are extracted with their first entries.

    Args:
        kept: entries by the group's name; groups that are not named keep all.
        onto: by layer, what its result is added to.
    """
    token = _told.set(_Told(kept, onto or {}))
    try:
        yield
    finally:
        _told.reset(token)


@dataclass(frozen=True)
class Part:
    """Channels that a layer makes, or a part of those that it reads.

    Attributes:
        size: at the fullest.
        group: the group that they belong to; None where they are never narrowed.
        entries: of the group.
    """

    size: int
    group: str | None = None
    entries: int = 1

    def kept(self) -> int:
        """How many of them run."""
        if self.group is None:
            return self.size
        return self.size // self.entries * _told.get().kept.get(self.group, self.entries)


class BlockLinear(ElasticLinear):
    """A linear layer inside a block."""

    name: str
    reads: tuple[Part, ...]
    makes: Part

    def __call__(self, x: Tensor, *, onto: Onto | None = None) -> Any:
        """(..., inputs) -> (..., outputs); hooks see what the layer is told beside its input."""
        onto = onto or _told.get().onto.get(self.name)
        return super().__call__(x, outputs=self.makes.kept(), onto=onto)

    def plain(self) -> nn.Linear:
        """The layer as it runs."""
        return self.narrow(self.reads[0].kept(), self.makes.kept())


class BlockConv2d(ElasticConv2d):
    """A convolution inside a block."""

    name: str
    reads: tuple[Part, ...]
    makes: Part

    def __call__(self, x: Tensor) -> Any:
        """(B, inputs, IY, IX) -> (B, outputs, OY, OX); see :class:`BlockLinear`."""
        kept = tuple(part.kept() for part in self.reads)
        onto = _told.get().onto.get(self.name)
        return super().__call__(x, outputs=self.makes.kept(), kept=kept, onto=onto)

    def plain(self) -> nn.Conv2d:
        """The layer as it runs."""
        kept = [part.kept() for part in self.reads]
        return self.narrow(kept if len(kept) > 1 else kept[0], self.makes.kept())


class BlockConv2dSame(BlockConv2d):
    """timm's convolution with TensorFlow's padding, which goes by the size of the input."""

    def __call__(self, x: Tensor) -> Any:
        """(B, inputs, IY, IX) -> (B, outputs, IY / stride, IX / stride), rounded up."""
        return super().__call__(pad_same(x, self.kernel_size, self.stride, self.dilation))

    def narrow(self, inputs: int | Sequence[int], outputs: int) -> nn.Conv2d:
        """A plain copy with the first channels."""
        conv = super().narrow(inputs, outputs)
        plain: nn.Conv2d = Conv2dSame(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,
            stride=conv.stride,
            dilation=conv.dilation,
            groups=conv.groups,
            bias=conv.bias is not None,
            device="meta",
        )
        plain.weight, plain.bias = conv.weight, conv.bias
        return plain


class BlockBatchNorm2d(ElasticBatchNorm2d):
    """A batch normalisation inside a block."""

    name: str
    makes: Part

    def plain(self) -> nn.BatchNorm2d:
        """The layer as it runs."""
        return self.narrow(self.makes.kept())


class BlockBatchNormAct2d(BlockBatchNorm2d):
    """timm's batch normalisation with an activation."""

    drop: nn.Module
    act: nn.Module

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> Self:
        """See :meth:`ElasticBatchNorm2d.of`."""
        elastic = super().of(norm)
        elastic.drop, elastic.act = norm.drop, norm.act  # type: ignore[assignment]
        return elastic

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Y, X) -> the same shape."""
        out: Tensor = self.act(self.drop(super().forward(x)))
        return out

    def narrow(self, channels: int) -> nn.BatchNorm2d:
        """A plain copy over the first channels."""
        norm = super().narrow(channels)
        plain: nn.BatchNorm2d = BatchNormAct2d(
            channels, eps=self.eps, momentum=self.momentum, apply_act=False, device="meta"
        )
        plain.weight, plain.bias = norm.weight, norm.bias
        plain.running_mean, plain.running_var = norm.running_mean, norm.running_var
        plain.num_batches_tracked = norm.num_batches_tracked
        plain.drop, plain.act = copy.deepcopy(self.drop), copy.deepcopy(self.act)
        return plain


BlockLayer = BlockLinear | BlockConv2d | BlockBatchNorm2d

_FORMS: Mapping[type[nn.Module], type[BlockLayer]] = {
    nn.Linear: BlockLinear,
    TimmLinear: BlockLinear,
    nn.Conv2d: BlockConv2d,
    Conv2dSame: BlockConv2dSame,
    nn.BatchNorm2d: BlockBatchNorm2d,
    BatchNormAct2d: BlockBatchNormAct2d,
}


def can_be_narrowed(layer: nn.Module) -> bool:
    """Whether a layer has an elastic form."""
    return type(layer) in _FORMS and getattr(layer, "padding_mode", "zeros") == "zeros"


def elastic(layer: nn.Module, name: str) -> BlockLayer:
    """The elastic form of a layer, sharing its parameters, all of its channels in no group."""
    form: Any = _FORMS[type(layer)]
    made: Any = form.of(layer)
    made.name, made.makes = name, Part(outputs(layer))
    if not isinstance(made, ElasticBatchNorm2d):
        made.reads = (Part(inputs(layer)),)
    found: BlockLayer = made.train(layer.training)
    return found


def linear(layer: nn.Linear) -> nn.Linear:
    """The same layer as torch's own class, sharing its parameters."""
    made = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
    made.weight, made.bias = layer.weight, layer.bias
    return made


def outputs(layer: nn.Module) -> int:
    """The output channels of a layer that can be narrowed."""
    for name in ("out_channels", "out_features", "num_features"):
        if hasattr(layer, name):
            return int(getattr(layer, name))
    raise TypeError(f"{type(layer).__name__} has no output channels")


def inputs(layer: nn.Module) -> int:
    """The input channels of a layer that can be narrowed."""
    for name in ("in_channels", "in_features", "num_features"):
        if hasattr(layer, name):
            return int(getattr(layer, name))
    raise TypeError(f"{type(layer).__name__} has no input channels")
