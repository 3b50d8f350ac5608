"""UPerNet's decoder: pyramid pooling, lateral maps, the feature pyramid and its bottleneck.

As published, every level of the pyramid is upsampled to the first one's size, and a 3x3 convolution
reads all of them. A tap of it is a 1x1 convolution, which commutes with bilinear upsampling, and a
shift:

    conv(concat_i(up_i(x_i))) = sum_i sum_t shift_t(up_i(W_i,t x_i))

``upsampled_late`` runs the right-hand side: products at each level's own size. Upsampling is
separable, so taps of a row are summed up before the rows are upsampled.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.upernet.modeling_upernet import UperNetConvModule, UperNetHead

from paretopath.elastic import (
    ChannelGroup,
    Choice,
    ElasticBatchNorm2d,
    ElasticConv2d,
    Onto,
    Reader,
    State,
    Unit,
)
from paretopath.elastic.layers import absorb_bias
from paretopath.elastic.stream import is_solving
from search_spaces.widths import channels


@dataclass(frozen=True)
class Widths:
    """Channels of one form of the decoder.

    Attributes:
        pool: of each pyramid pooling branch.
        lateral: of lateral maps and the pyramid's output.
        levels: of each level's output, as the FPN bottleneck reads it.
        out: of the FPN bottleneck's output.
    """

    pool: int
    lateral: int
    levels: tuple[int, ...]
    out: int


class Decoder(Unit):
    """Feature maps (B, C_i, Y_i, X_i) -> logits (B, num_classes, Y, X) at the images' size.

    Args:
        name: of the unit.
        head: the original one, of which it takes the modules.
        decisions: the names of the decoder's decisions.
        divisor: of kept channels.
        patch_size: pixels of the image to one of the first feature map, either way.
    """

    is_exit = True

    def __init__(
        self,
        name: str,
        head: UperNetHead,
        decisions: Sequence[str],
        *,
        divisor: int = 1,
        patch_size: int = 4,
    ) -> None:
        super().__init__(name, decisions=decisions)
        self.divisor = divisor
        for module in head.modules():
            if isinstance(module, UperNetConvModule):
                module.conv = ElasticConv2d.of(module.conv)
                module.batch_norm = ElasticBatchNorm2d.of(module.batch_norm)
        head.classifier = ElasticConv2d.of(head.classifier)
        self.head = head
        self.patch_size = patch_size
        self.full = int(head.channels)
        self.levels = len(head.lateral_convs)
        self.scales = len(head.psp_modules.blocks)
        head.bottleneck.conv.segments = (head.in_channels[-1], *(self.full,) * self.scales)
        head.fpn_bottleneck.conv.segments = (self.full,) * (self.levels + 1)

    def _widths(self, choice: Choice) -> Widths:
        def width(decision: str) -> int:
            return channels(self.full, choice[f"{self.name}.{decision}"], self.divisor)

        return Widths(
            pool=width("pool_width"),
            lateral=width("lateral_width"),
            levels=tuple(width(f"fpn.{i}.width") for i in range(self.levels)),
            out=width("width"),
        )

    def forward(self, state: State, choice: Choice) -> State:
        head, widths = self.head, self._widths(choice)
        laterals = [
            _conv(module, x, widths.lateral)
            for module, x in zip(head.lateral_convs, state, strict=False)
        ]
        laterals.append(self._pyramid(state[-1], widths))
        for i in range(self.levels, 0, -1):
            laterals[i - 1] = laterals[i - 1] + _resized(laterals[i], laterals[i - 1].shape[2:])
        outputs = [
            _conv(module, x, width)
            for module, x, width in zip(head.fpn_convs, laterals, widths.levels, strict=False)
        ]
        outputs.append(laterals[-1])
        kept = (*widths.levels, widths.lateral)
        if self._is_late(choice) and not is_solving():
            last = head.fpn_bottleneck
            weight, bias = last.conv.operands(kept, widths.out)
            fused = last.activation(last.batch_norm(_convolved_late(outputs, weight, bias)))
        else:
            fused = _conv(head.fpn_bottleneck, _joined(outputs), widths.out, kept)
        logits = head.classifier(fused)
        return _resized(logits, [n * self.patch_size for n in logits.shape[2:]])

    def _is_late(self, choice: Choice) -> bool:
        return choice.get(f"{self.name}.form") == "upsampled_late"

    def _pyramid(self, x: Tensor, widths: Widths) -> Tensor:
        """The pyramid pooling module and its bottleneck: (B, C, Y, X) -> (B, lateral, Y, X)."""
        head = self.head
        parts = [x]
        for pool, module in (block.layers for block in head.psp_modules.blocks):
            parts.append(_resized(_conv(module, pool(x), widths.pool), x.shape[2:]))
        kept = (x.shape[1], *(widths.pool,) * self.scales)
        return _conv(head.bottleneck, torch.cat(parts, dim=1), widths.lateral, kept)

    def extract(self, choice: Choice) -> nn.Module:
        widths, own = self._widths(choice), self.head
        plain = copy.deepcopy(own)
        for mine, theirs in zip(plain.psp_modules.blocks, own.psp_modules.blocks, strict=True):
            _narrow(mine.layers[1], theirs.layers[1], (own.in_channels[-1],), widths.pool)
        kept = (own.in_channels[-1], *(widths.pool,) * self.scales)
        _narrow(plain.bottleneck, own.bottleneck, kept, widths.lateral)
        for i in range(self.levels):
            inputs = (own.in_channels[i],)
            _narrow(plain.lateral_convs[i], own.lateral_convs[i], inputs, widths.lateral)
            inputs = (widths.lateral,)
            _narrow(plain.fpn_convs[i], own.fpn_convs[i], inputs, widths.levels[i])
        kept = (*widths.levels, widths.lateral)
        _narrow(plain.fpn_bottleneck, own.fpn_bottleneck, kept, widths.out)
        plain.classifier = own.classifier.narrow(widths.out, own.classifier.out_channels)
        if self._is_late(choice):
            return LateDecoder(plain, self.patch_size)
        return PlainDecoder(plain, self.patch_size)

    def channel_groups(self) -> list[ChannelGroup]:
        pools = [f"head.psp_modules.{i}.1" for i in range(self.scales)]
        fpn = [f"head.fpn_convs.{i}" for i in range(self.levels)]
        laterals = [f"head.lateral_convs.{i}" for i in range(self.levels)]
        last = Reader("head.fpn_bottleneck.conv", self.levels)
        return [
            *(self._group([m], Reader("head.bottleneck.conv", i + 1)) for i, m in enumerate(pools)),
            # lateral maps and the pyramid's output are summed up: their channels go together
            self._group(["head.bottleneck", *laterals], *(Reader(f"{m}.conv") for m in fpn), last),
            *(self._group([m], Reader("head.fpn_bottleneck.conv", i)) for i, m in enumerate(fpn)),
            self._group(["head.fpn_bottleneck"], Reader("head.classifier")),
        ]

    def _group(self, modules: Sequence[str], *readers: Reader) -> ChannelGroup:
        makers = [f"{module}.{part}" for module in modules for part in ("conv", "batch_norm")]
        return ChannelGroup(self.full, tuple(makers), readers)


class PlainDecoder(nn.Module):
    """A transformers UPerNet head whose logits are brought to the images' size.

    Args:
        head: the head.
        divisor: of kept channels.
        patch_size: pixels of the image to one of the first feature map, either way.
    """

    def __init__(self, head: UperNetHead, patch_size: int) -> None:
        super().__init__()
        self.head = head
        self.patch_size = patch_size

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Feature maps (B, C_i, Y_i, X_i) -> logits (B, num_classes, Y, X)."""
        logits = self.head(features)
        return _resized(logits, [n * self.patch_size for n in logits.shape[2:]])


class LateDecoder(nn.Module):
    """The rewritten decoder around the modules of a transformers UPerNet head.

    Args:
        head: the head.
        divisor: of kept channels.
        patch_size: pixels of the image to one of the first feature map, either way.
    """

    def __init__(self, head: UperNetHead, patch_size: int) -> None:
        super().__init__()
        self.head = head
        self.patch_size = patch_size

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Feature maps (B, C_i, Y_i, X_i) -> logits (B, num_classes, Y, X)."""
        head = self.head
        laterals = [conv(x) for conv, x in zip(head.lateral_convs, features, strict=False)]
        laterals.append(head.psp_forward(features))
        for i in range(len(laterals) - 1, 0, -1):
            laterals[i - 1] = laterals[i - 1] + _resized(laterals[i], laterals[i - 1].shape[2:])
        outputs = [conv(x) for conv, x in zip(head.fpn_convs, laterals, strict=False)]
        last = head.fpn_bottleneck
        fused = _convolved_late([*outputs, laterals[-1]], last.conv.weight, last.conv.bias)
        logits = head.classifier(last.activation(last.batch_norm(fused)))
        return _resized(logits, [n * self.patch_size for n in logits.shape[2:]])


def _joined(maps: Sequence[Tensor]) -> Tensor:
    """Maps (B, C_i, Y_i, X_i) side by side at the first one's size."""
    size = maps[0].shape[2:]
    return torch.cat([maps[0], *(_resized(x, size) for x in maps[1:])], dim=1)


def _convolved_late(maps: Sequence[Tensor], weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of :func:`_joined` maps, its products at each map's own size.

    Args:
        maps: (B, C_i, Y_i, X_i); the first is the largest.
        weight: (K, sum of C_i, 3, 3), of a convolution padded by 1.
        bias: (K,) or None.

    Returns:
        (B, K, Y_0, X_0).
    """
    size = maps[0].shape[2:]
    parts = weight.split([x.shape[1] for x in maps], dim=1)
    total = F.conv2d(maps[0], parts[0], bias, padding=1)
    for x, w in zip(maps[1:], parts[1:], strict=True):
        products = w.permute(2, 3, 0, 1).reshape(-1, w.shape[1], 1, 1)
        taps = F.conv2d(x, products)  # (B, 9 K, Y_i, X_i)
        wide = _resized(taps, (x.shape[2], size[1])).unflatten(1, (3, 3, -1))
        rows = _three_taps(*wide.unbind(2), axis=0).flatten(1, 2)  # (B, 3 K, Y_i, X_0)
        high = _resized(rows, size).unflatten(1, (3, -1))
        total = total + _three_taps(*high.unbind(1), axis=1)
    return total


def _three_taps(before: Tensor, at: Tensor, after: Tensor, *, axis: int) -> Tensor:
    """Each place's sum of the tap before it, at it and after it; nothing lies beyond the rim.

    Args:
        before, at, after: what each tap gives, of one shape.
        axis: along which they lie, from the last one: 0 for columns, 1 for rows.
    """
    skipped = (0, 0) * axis
    return at + F.pad(before, (*skipped, 1, -1)) + F.pad(after, (*skipped, -1, 1))


def _conv(
    module: UperNetConvModule, x: Tensor, outputs: int, kept: Sequence[int] | None = None
) -> Tensor:
    """Convolution, norm and activation, with the first channels alone."""
    y: Tensor = module.activation(
        module.batch_norm(module.conv(x, outputs, kept, onto=Onto(through=module.batch_norm)))
    )
    return y


def _narrow(
    plain: UperNetConvModule, own: UperNetConvModule, inputs: Sequence[int], outputs: int
) -> None:
    plain.conv = own.conv.narrow(inputs, outputs)
    plain.batch_norm = own.batch_norm.narrow(outputs)
    absorb_bias(plain.conv, plain.batch_norm)


def _resized(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
