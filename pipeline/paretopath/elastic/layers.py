"""Layers that run with their first channels alone: what elastic models are made of."""

from collections.abc import Sequence
from typing import Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paretopath.elastic.compensation import Operands, compensation_of
from paretopath.elastic.own import own_of
from paretopath.elastic.stream import Onto
from paretopath.errors import InvalidValueError
from paretopath.weights.new import take_marks

M = TypeVar("M", bound=nn.Module)


class ElasticLinear(nn.Linear):
    """A linear layer that can run with its first inputs and outputs alone; weights are views.

    With a compensation (see :mod:`paretopath.elastic.compensation`) narrower inputs take re-solved
    weights instead; a path may have a weight and a bias of its own (:func:`own_of`).
    """

    @classmethod
    def of(cls, linear: nn.Linear) -> Self:
        """The elastic form of a linear layer, sharing its parameters."""
        elastic = cls(linear.in_features, linear.out_features, bias=False, device="meta")
        elastic.weight, elastic.bias = linear.weight, linear.bias
        take_marks(elastic, linear)
        return elastic

    def operands(self, inputs: int, outputs: int) -> Operands:
        """Weight (outputs, inputs) and bias (outputs,) of the narrowed layer, as views."""
        weight, bias = _own_or_kept(self, (inputs,), (self.in_features,))
        return weight[:outputs], bias[:outputs] if bias is not None else None

    def forward(self, x: Tensor, outputs: int | None = None, *, onto: Onto | None = None) -> Tensor:
        """(..., inputs) -> (..., outputs); as many inputs as ``x`` has, all outputs by default.

        Args:
            x: the input.
            outputs: how many are computed.
            onto: what becomes of the result; nothing here depends on it.
        """
        return F.linear(x, *self.operands(x.shape[-1], outputs or self.out_features))

    def narrow(self, inputs: int, outputs: int) -> nn.Linear:
        """A plain copy with the first inputs and outputs."""
        weight, bias = self.operands(inputs, outputs)
        plain = nn.Linear(inputs, outputs, bias=bias is not None, device="meta")
        return fill(plain, weight=weight, bias=bias)


class ElasticConv2d(nn.Conv2d):
    """A convolution that can run with its first channels alone, or its first groups.

    With a compensation (see :mod:`paretopath.elastic.compensation`) narrower inputs take re-solved
    weights instead; a path may have a weight and a bias of its own (:func:`own_of`).

    Attributes:
        segments: the channels that each part of a concatenated input has at its fullest; one part
            if None.
    """

    segments: tuple[int, ...] | None = None

    @classmethod
    def of(cls, conv: nn.Conv2d) -> Self:
        """The elastic form of a convolution, sharing its parameters."""
        if conv.padding_mode != "zeros":
            raise InvalidValueError(
                f"an elastic convolution must have zero padding, "
                f"but got padding_mode={conv.padding_mode!r}"
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
        take_marks(elastic, conv)
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
        segments = self.segments or (self.in_channels,)
        if isinstance(inputs, int):
            inputs = segments if inputs == self.in_channels else (inputs,)
        weight, bias = _own_or_kept(self, tuple(inputs), segments)
        return weight[:outputs], bias[:outputs] if bias is not None else None

    def forward(
        self,
        x: Tensor,
        outputs: int | None = None,
        kept: Sequence[int] | None = None,
        *,
        onto: Onto | None = None,
    ) -> Tensor:
        """(B, inputs, IY, IX) -> (B, outputs, OY, OX).

        Args:
            x: the input; where it has several segments, ``kept`` of each, concatenated; of a
                grouped convolution, whole groups.
            outputs: all by default; of a grouped convolution always those of the input's groups.
            kept: the input channels of each segment; needed where there are several.
            onto: what becomes of the result; nothing here depends on it.
        """
        inputs = x.shape[1]
        groups = self._groups(inputs)
        if self.groups > 1:
            outputs = self.out_channels // self.groups * groups
        weight, bias = self.operands(kept or inputs, outputs or self.out_channels)
        return F.conv2d(x, weight, bias, self.stride, self.padding, self.dilation, groups)

    def _groups(self, inputs: int) -> int:
        """The groups of the first inputs."""
        return inputs // (self.in_channels // self.groups) if self.groups > 1 else 1

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
            groups=self._groups(inputs),
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
        take_marks(elastic, norm)
        return elastic

    def statistics(self) -> tuple[Tensor, Tensor] | None:
        """Mean and variance, of the channels that run or of more, in evaluation mode.

        The path's if it has its own, else the model's; None where each batch's are taken.
        """
        own = own_of(self)
        mean = own.get("running_mean", self.running_mean)
        variance = own.get("running_var", self.running_var)
        return None if mean is None or variance is None else (mean, variance)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Y, X) -> the same shape."""
        n = x.shape[1]
        mean, variance = self.statistics() or (None, None)
        if self.training:  # what learns updates the model's statistics, never a path's
            mean, variance = self.running_mean, self.running_var
        return F.batch_norm(
            x,
            mean[:n] if mean is not None else None,
            variance[:n] if variance is not None else None,
            self.weight[:n],
            self.bias[:n],
            self.training or mean is None,
            self.momentum if self.momentum is not None else 0.1,
            self.eps,
        )

    def narrow(self, channels: int) -> nn.BatchNorm2d:
        """A plain copy over the first channels."""
        plain = nn.BatchNorm2d(channels, eps=self.eps, momentum=self.momentum, device="meta")
        found = self.statistics()
        assert found is not None
        mean, variance = found
        fill(plain, weight=self.weight[:channels], bias=self.bias[:channels])
        plain.running_mean = mean[:channels].detach().clone()
        plain.running_var = variance[:channels].detach().clone()
        plain.num_batches_tracked = torch.zeros((), dtype=torch.long)
        return plain


ElasticLayer = ElasticLinear | ElasticConv2d


@torch.no_grad()
def absorb_bias(layer: nn.Conv2d | nn.Linear, norm: nn.BatchNorm2d) -> None:
    """Moves a layer's bias, if it has one, into the mean that the next layer subtracts.

    Compensation gives a bias to a layer that had none; so it costs nothing.

    Args:
        layer: plain, changed in place.
        norm: takes the layer's output; changed in place.
    """
    if layer.bias is not None:
        assert norm.running_mean is not None
        norm.running_mean -= layer.bias
        layer.bias = None  # type: ignore[assignment]


def _own_or_kept(layer: ElasticLayer, kept: tuple[int, ...], segments: tuple[int, ...]) -> Operands:
    """Weight (outputs, kept inputs, …) and bias: the path's if it has its own, else the model's."""
    own = own_of(layer)
    weight = own.get("weight")
    if weight is not None:
        return weight, own.get("bias", layer.bias)
    return _kept_inputs(layer, kept, segments)


def _kept_inputs(layer: ElasticLayer, kept: tuple[int, ...], segments: tuple[int, ...]) -> Operands:
    """Weight (all outputs, kept inputs, …) and bias; views where it is one prefix as it stands."""
    if kept == segments:
        return layer.weight, layer.bias
    compensation = compensation_of(layer)
    if compensation is not None:
        return compensation.solve(layer.weight, layer.bias, kept)
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
