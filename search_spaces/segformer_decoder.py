"""SegFormer's decoder, narrowed or rewritten.

As published: each branch is a linear layer and an upsampling; their outputs, concatenated from the
last stage to the first, meet in the 1x1 fuse convolution. Up to its batch norm all of this is
linear, and a 1x1 convolution commutes with bilinear upsampling (whose weights sum to one, so that
biases pass it too):

    fuse(concat(up(W_i x_i + b_i))) = sum_i up(F_i W_i x_i) + sum_i F_i b_i

with F_i the fuse convolution's columns for branch i. ``merged`` runs the right-hand side, batch
norm folded in. ``gathered`` upsamples the features themselves, which have fewer channels in small
models, and applies all F_i W_i at once to their concatenation: more multiply-accumulates, but no
sums of whole feature maps, which cost traffic.
"""

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.segformer.modeling_segformer import SegformerDecodeHead

from paretopath.elastic import (
    ChannelGroup,
    Choice,
    ElasticBatchNorm2d,
    ElasticConv2d,
    ElasticLinear,
    Onto,
    Reader,
    State,
    Unit,
    fill,
)
from paretopath.elastic.compensation import Derived, Operands
from paretopath.elastic.layers import absorb_bias
from paretopath.elastic.own import own_of
from paretopath.elastic.stream import is_solving
from search_spaces.widths import channels

MERGED, GATHERED, AS_PUBLISHED = FORMS = ("merged", "gathered", "as_published")


class Product(ElasticConv2d):
    """The linear maps of a decoder, multiplied out, as one 1x1 convolution of all its features.

    It has no parameters, but a path may have a weight and a bias of its own for it.

    Args:
        decoder: whose maps.
        features: channels of all features together.
        width: of the fuse convolution.
    """

    def __init__(self, decoder: "Decoder", features: int, width: int) -> None:
        super().__init__(features, width, (1, 1), bias=False, device="meta")
        self.register_parameter("weight", None)
        self._decoder = (decoder,)  # not a part of this one

    def operands(self, inputs: int | Sequence[int], outputs: int) -> Operands:
        """Weight (outputs, inputs, 1, 1) and bias (outputs,)."""
        own = own_of(self)
        weight = own.get("weight")
        if weight is not None:
            return weight, own.get("bias")
        *weights, bias = self._decoder[0].multiplied(outputs)
        return torch.cat(weights, dim=1)[..., None, None], bias


class Decoder(Unit):
    """Four features (B, C_i, Y_i, X_i) -> logits (B, num_classes, Y_0, X_0)."""

    is_exit = True

    def __init__(
        self, name: str, head: SegformerDecodeHead, decisions: Sequence[str], divisor: int = 1
    ) -> None:
        super().__init__(name, decisions=decisions)
        self.divisor = divisor  # of kept channels
        for branch in head.linear_projections:
            branch.proj = ElasticLinear.of(branch.proj)
        head.linear_fuse = ElasticConv2d.of(head.linear_fuse)
        head.batch_norm = ElasticBatchNorm2d.of(head.batch_norm)
        head.classifier = ElasticConv2d.of(head.classifier)
        self.head = head
        self.branches = len(head.linear_projections)
        self.branch_width = int(head.linear_projections[0].proj.out_features)
        head.linear_fuse.segments = (self.branch_width,) * self.branches
        self.features = [branch.proj.in_features for branch in head.linear_projections]
        self.product = Product(self, sum(self.features), head.linear_fuse.out_channels)
        self._derived = Derived(capacity=8)

    def _width(self, choice: Choice) -> int:
        full, share = self.head.linear_fuse.out_channels, choice[f"{self.name}.width"]
        return channels(full, share, self.divisor)

    def _kept(self, choice: Choice) -> tuple[int, ...]:
        """Channels of each segment of the fuse convolution's input: the last branch comes first."""
        names = [f"{self.name}.branches.{i}.keep" for i in reversed(range(self.branches))]
        return tuple(channels(self.branch_width, choice[name], self.divisor) for name in names)

    def _form(self, choice: Choice) -> str:
        return str(choice.get(f"{self.name}.form", AS_PUBLISHED))

    def forward(self, state: State, choice: Choice) -> State:
        width, head, form = self._width(choice), self.head, self._form(choice)
        if form != AS_PUBLISHED and is_solving():
            onto = Onto(through=head.batch_norm, like=head.linear_fuse)
            fused = head.batch_norm(self.product(_gather(state), width, onto=onto))
        elif form == MERGED:
            fused = self._merged(state, width)
        elif form == GATHERED:
            fused = self._gathered(state, width)
        else:
            fused = head.batch_norm(self._fused(state, self._kept(choice), width))
        return head.classifier(head.dropout(head.activation(fused)))

    def _fused(self, features: tuple[Tensor, ...], kept: tuple[int, ...], width: int) -> Tensor:
        """The fuse convolution's output (B, width, Y_0, X_0), as published."""
        size = features[0].shape[2:]
        parts = []
        for x, branch, k in zip(features, self.head.linear_projections, kept[::-1], strict=True):
            tokens = branch.proj(x.flatten(2).transpose(1, 2), k)
            parts.append(_upsampled(tokens.transpose(1, 2).unflatten(2, x.shape[2:]), size))
        onto = Onto(through=self.head.batch_norm)
        fused: Tensor = self.head.linear_fuse(torch.cat(parts[::-1], 1), width, kept, onto=onto)
        return fused

    def _merged(self, features: tuple[Tensor, ...], width: int) -> Tensor:
        """The batch norm's output (B, width, Y_0, X_0), the linear maps multiplied out."""
        *weights, bias = self._merged_operands(width)
        fused = _sum_upsampled(
            [F.conv2d(x, w[..., None, None]) for x, w in zip(features[:-1], weights, strict=False)]
            + [F.conv2d(features[-1], weights[-1][..., None, None], bias)]
        )
        return fused if self._folded() else self.head.batch_norm(fused)  # type: ignore[no-any-return]

    def _gathered(self, features: tuple[Tensor, ...], width: int) -> Tensor:
        """The batch norm's output (B, width, Y_0, X_0), one linear map of all features."""
        *weights, bias = self._merged_operands(width)
        weight = torch.cat(weights, dim=1)[..., None, None]
        fused = F.conv2d(_gather(features), weight, bias)
        return fused if self._folded() else self.head.batch_norm(fused)  # type: ignore[no-any-return]

    def _folded(self) -> tuple[Tensor, Tensor] | None:
        """Mean and variance of the batch norm where it is multiplied in: not while it learns, nor
        while it takes each batch's.
        """
        found: tuple[Tensor, Tensor] | None = self.head.batch_norm.statistics()
        return None if self.training else found

    def _merged_operands(self, width: int) -> tuple[Tensor, ...]:
        """A weight (width, C_i) a branch, a bias (width,), with batch norm where it folds."""
        head = self.head
        if head.linear_fuse.weight.is_meta:  # nothing to multiply: tracing sees shapes alone
            sizes = [branch.proj.in_features for branch in head.linear_projections]
            return *(torch.empty(width, c, device="meta") for c in sizes), torch.empty(
                width, device="meta"
            )
        statistics = self._folded()
        if statistics is None:
            return self._multiply(width, None)
        norm = head.batch_norm
        sources = [head.linear_fuse.weight, norm.weight, norm.bias, *statistics]
        for branch in head.linear_projections:
            sources += [branch.proj.weight, branch.proj.bias]
        own = [t for t in own_of(self.product).values() if t is not None]
        sources += own
        key = (width, *map(id, [*statistics, *own]))  # paths with something of their own take turns
        return self._derived.get(key, sources, lambda: self._multiply(width, statistics))

    def _multiply(self, width: int, folded: tuple[Tensor, Tensor] | None) -> tuple[Tensor, ...]:
        """The same, with a batch norm of these statistics multiplied in, or without it."""
        weight, bias = self.product.operands(self.product.in_channels, width)
        assert bias is not None
        weights = weight[:, :, 0, 0].split(self.features, dim=1)
        if folded is None:
            return (*weights, bias)
        (mean, variance), norm = folded, self.head.batch_norm
        scale = norm.weight[:width] / torch.sqrt(variance[:width] + norm.eps)
        shifted = norm.bias[:width] + scale * (bias - mean[:width])
        return (*(scale[:, None] * part for part in weights), shifted)

    def multiplied(self, width: int) -> tuple[Tensor, ...]:
        """A weight (width, C_i) a branch and a bias (width,): the branches' linear maps times the
        fuse convolution.
        """
        fuse, branches = self.head.linear_fuse.weight, self.head.linear_projections
        columns = fuse[:width, :, 0, 0].split(self.branch_width, dim=1)[::-1]
        pairs = list(zip(columns, branches, strict=True))
        biases = torch.stack([column @ branch.proj.bias for column, branch in pairs])
        return (*(column @ branch.proj.weight for column, branch in pairs), biases.sum(0))

    def extract(self, choice: Choice) -> nn.Module:
        width, own = self._width(choice), self.head
        classifier = own.classifier.narrow(width, own.classifier.out_channels)
        if self._form(choice) == MERGED:
            return MergedDecoder(self._merged_convolutions(width), own.dropout.p, classifier)
        if self._form(choice) == GATHERED:
            return GatheredDecoder(self._gathered_convolution(width), own.dropout.p, classifier)
        kept = self._kept(choice)
        head = copy.deepcopy(own)
        for branch, k in zip(head.linear_projections, kept[::-1], strict=True):
            branch.proj = branch.proj.narrow(branch.proj.in_features, k)
        head.linear_fuse = own.linear_fuse.narrow(kept, width)
        head.batch_norm = own.batch_norm.narrow(width)
        absorb_bias(head.linear_fuse, head.batch_norm)
        head.classifier = classifier
        plain: nn.Module = head
        return plain

    def _folded_operands(self, width: int) -> tuple[Tensor, ...]:
        with torch.no_grad():
            if self.head.linear_fuse.weight.is_meta:
                return self._merged_operands(width)
            return self._multiply(width, self.head.batch_norm.statistics())

    def _gathered_convolution(self, width: int) -> nn.Conv2d:
        *weights, bias = self._folded_operands(width)
        weight = torch.cat(weights, dim=1)
        conv = nn.Conv2d(weight.shape[1], width, 1, device="meta")
        return fill(conv, weight=weight[..., None, None], bias=bias)

    def _merged_convolutions(self, width: int) -> list[nn.Conv2d]:
        *weights, bias = self._folded_operands(width)
        convolutions = []
        for i, weight in enumerate(weights):
            last = i == len(weights) - 1
            conv = nn.Conv2d(weight.shape[1], width, 1, bias=last, device="meta")
            convolutions.append(
                fill(conv, weight=weight[..., None, None], bias=bias if last else None)
            )
        return convolutions

    def channel_groups(self) -> list[ChannelGroup]:
        groups = [
            ChannelGroup(
                self.branch_width,
                (f"head.linear_projections.{i}.proj",),
                (Reader("head.linear_fuse", self.branches - 1 - i),),
            )
            for i in range(self.branches)
        ]
        width = self.head.linear_fuse.out_channels
        makers = ("head.linear_fuse", "head.batch_norm")
        return [*groups, ChannelGroup(width, makers, (Reader("head.classifier"),))]


class MergedDecoder(nn.Module):
    """The rewritten decoder as plain modules, batch norm folded in.

    Args:
        convolutions: one 1x1 convolution a feature map, the last one with the bias of all.
        dropout: probability, in training.
        classifier: 1x1 convolution to the classes.
    """

    def __init__(
        self, convolutions: Sequence[nn.Conv2d], dropout: float, classifier: nn.Conv2d
    ) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(convolutions)
        self.activation = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.classifier = classifier

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Features (B, C_i, Y_i, X_i) -> logits (B, num_classes, Y_0, X_0)."""
        maps = [conv(x) for conv, x in zip(self.convolutions, features, strict=True)]
        logits: Tensor = self.classifier(self.dropout(self.activation(_sum_upsampled(maps))))
        return logits


class GatheredDecoder(nn.Module):
    """The decoder rewritten as one convolution of all features, batch norm folded in.

    Args:
        convolution: 1x1, from the channels of all features.
        dropout: probability, in training.
        classifier: 1x1 convolution to the classes.
    """

    def __init__(self, convolution: nn.Conv2d, dropout: float, classifier: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution
        self.activation = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.classifier = classifier

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        """Features (B, C_i, Y_i, X_i) -> logits (B, num_classes, Y_0, X_0)."""
        fused = self.activation(self.convolution(_gather(features)))
        logits: Tensor = self.classifier(self.dropout(fused))
        return logits


def _gather(features: Sequence[Tensor]) -> Tensor:
    """All features (B, C_i, Y_i, X_i) at the size of the first, concatenated."""
    size = features[0].shape[2:]
    return torch.cat([features[0], *(_upsampled(x, size) for x in features[1:])], dim=1)


def _sum_upsampled(maps: Sequence[Tensor]) -> Tensor:
    """The sum of maps (B, C, Y_i, X_i), each upsampled to the size of the first."""
    total = maps[0]
    for x in maps[1:]:
        total = total + _upsampled(x, total.shape[2:])
    return total


def _upsampled(x: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)
