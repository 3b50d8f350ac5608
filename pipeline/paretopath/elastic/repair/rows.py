"""Positions of a layer's results, sampled: its inputs and outputs there as rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from paretopath.elastic.layers import ElasticConv2d, ElasticLayer, ElasticLinear
from paretopath.elastic.stream import Onto

_MOST_KEYS = 1 << 32
"""More than an image has positions."""


@dataclass(frozen=True)
class Call:
    """One call of an elastic layer.

    Attributes:
        layer: dense.
        x: its input.
        outputs: how many channels it computes.
        kept: the channels of each segment of its input, or of all of it.
        onto: what its result is added to, if it is.
    """

    layer: ElasticLayer
    x: Tensor
    outputs: int
    kept: int | Sequence[int]
    onto: Onto | None

    @classmethod
    def of(cls, layer: ElasticLayer, args: Sequence[Any], kwargs: dict[str, Any]) -> "Call":
        """A call from what a hook is given of it."""
        named = dict(zip(("x", "outputs", "kept"), args, strict=False)) | kwargs
        x = named["x"]
        convolves = isinstance(layer, ElasticConv2d)
        outputs = named.get("outputs") or layer.weight.shape[0]
        kept = named.get("kept") or x.shape[1 if convolves else -1]
        return cls(layer, x, outputs, kept, named.get("onto"))

    @property
    def positions(self) -> int:
        """Of the result, over the batch."""
        if isinstance(self.layer, ElasticLinear):
            return self.x.numel() // self.x.shape[-1]
        height, width = self._size()
        return len(self.x) * height * width

    @property
    def keys(self) -> Tensor | None:
        """(positions,) by which positions of two paths correspond; None where they do by place."""
        keys = None if self.onto is None else self.onto.keys
        if keys is None:
            return None
        image = torch.arange(len(keys), device=keys.device)[:, None]
        return (image * _MOST_KEYS + keys).flatten()

    def inputs(self, rows: Tensor) -> Tensor:
        """(n, K) what the results at some positions are computed from, in the weight's order.

        Args:
            rows: (n,) of the result's positions, in the order of the batch.
        """
        layer, x = self.layer, self.x
        if isinstance(layer, ElasticLinear):
            return x.reshape(-1, x.shape[-1])[rows].float()
        height, width = self._size()
        image, place = rows // (height * width), rows % (height * width)
        left, right, top, bottom = _padding(layer)
        padded = F.pad(x, (left, right, top, bottom)).movedim(1, -1)  # (B, Y, X, C)
        y, z = place // width * layer.stride[0], place % width * layer.stride[1]
        taps = [
            padded[image, y + i * layer.dilation[0], z + j * layer.dilation[1]]
            for i in range(layer.kernel_size[0])
            for j in range(layer.kernel_size[1])
        ]
        return torch.stack(taps, dim=2).flatten(1).float()  # (n, C * FY * FX)

    def at(self, result: Tensor, rows: Tensor) -> Tensor:
        """(n, C) a tensor of the result's shape, at some positions."""
        if isinstance(self.layer, ElasticConv2d):
            result = result.movedim(1, -1)
        return result.reshape(-1, result.shape[-1])[rows].float()

    def skip(self, rows: Tensor) -> Tensor | None:
        """(n, outputs) what the result is added to, at some positions; None if to nothing, or to
        something of other positions.
        """
        stream = None if self.onto is None else self.onto.stream()
        if stream is None or stream.numel() != self.positions * self.outputs:
            return None
        return self.at(stream, rows)

    def scale(self) -> Tensor:
        """(outputs,) by how much the stream moves with the result."""
        if self.onto is None:
            return torch.ones(self.outputs, device=self.x.device)
        convolves = isinstance(self.layer, ElasticConv2d)
        shape = (1, self.outputs, 1, 1) if convolves else (1, self.outputs)
        return self.onto.scale(shape, self.x).float()

    def _size(self) -> tuple[int, int]:
        """Height and width of a convolution's result."""
        assert isinstance(self.layer, ElasticConv2d)
        left, right, top, bottom = _padding(self.layer)
        extents = (self.x.shape[2] + top + bottom, self.x.shape[3] + left + right)
        height, width = (
            (extent - dilation * (taps - 1) - 1) // stride + 1
            for extent, taps, dilation, stride in zip(
                extents,
                self.layer.kernel_size,
                self.layer.dilation,
                self.layer.stride,
                strict=True,
            )
        )
        return height, width


def _padding(conv: ElasticConv2d) -> tuple[int, int, int, int]:
    """Left, right, top and bottom."""
    if isinstance(conv.padding, str):  # as PyTorch pads: what is odd comes last
        spans = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        y, x = spans if conv.padding == "same" else (0, 0)
        return x // 2, x - x // 2, y // 2, y - y // 2
    y, x = conv.padding
    return x, x, y, y
