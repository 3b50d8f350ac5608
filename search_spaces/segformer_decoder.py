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
    Reader,
    State,
    Unit,
    fill,
)
from paretopath.elastic.compensation import Derived
from paretopath.elastic.layers import absorb_bias
from search_spaces.widths import channels

MERGED, GATHERED, AS_PUBLISHED = FORMS = ("merged", "gathered", "as_published")


class Decoder(Unit):
    """Four features (B, C_i, Y_i, X_i) -> logits (B, num_classes, Y_0, X_0)."""

    is_exit = True

    def __init__(self, name: str, head: SegformerDecodeHead, decisions: Sequence[str]) -> None:
        super().__init__(name, decisions=decisions)
        for branch in head.linear_projections:
            branch.proj = ElasticLinear.of(branch.proj)
        head.linear_fuse = ElasticConv2d.of(head.linear_fuse)
        head.batch_norm = ElasticBatchNorm2d.of(head.batch_norm)
        head.classifier = ElasticConv2d.of(head.classifier)
        self.head = head
        self.branches = len(head.linear_projections)
        self.branch_width = int(head.linear_projections[0].proj.out_features)
        head.linear_fuse.segments = (self.branch_width,) * self.branches
        self._derived = Derived(capacity=8)

    def _width(self, choice: Choice) -> int:
        return channels(self.head.linear_fuse.out_channels, choice[f"{self.name}.width"])

    def _kept(self, choice: Choice) -> tuple[int, ...]:
        """Channels of each segment of the fuse convolution's input: the last branch comes first."""
        names = [f"{self.name}.branches.{i}.keep" for i in reversed(range(self.branches))]
        return tuple(channels(self.branch_width, choice[name]) for name in names)

    def _form(self, choice: Choice) -> str:
        return str(choice.get(f"{self.name}.form", AS_PUBLISHED))

    def forward(self, state: State, choice: Choice) -> State:
        width, head, form = self._width(choice), self.head, self._form(choice)
        if form == MERGED:
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
        fused: Tensor = self.head.linear_fuse(torch.cat(parts[::-1], dim=1), width, kept)
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
        key = (width, *map(id, statistics))  # paths with statistics of their own take turns
        return self._derived.get(key, sources, lambda: self._multiply(width, statistics))

    def _multiply(self, width: int, folded: tuple[Tensor, Tensor] | None) -> tuple[Tensor, ...]:
        """The same, with a batch norm of these statistics multiplied in, or without it."""
        head, norm = self.head, self.head.batch_norm
        columns = head.linear_fuse.weight[:width, :, 0, 0].split(self.branch_width, dim=1)[::-1]
        scale = torch.ones(width, device=columns[0].device)
        bias = torch.zeros(width, device=columns[0].device)
        if folded is not None:
            mean, variance = folded
            scale = norm.weight[:width] / torch.sqrt(variance[:width] + norm.eps)
            bias = norm.bias[:width] - scale * mean[:width]
        weights = []
        for fuse, branch in zip(columns, head.linear_projections, strict=True):
            weights.append(scale[:, None] * (fuse @ branch.proj.weight))
            bias = bias + scale * (fuse @ branch.proj.bias)
        return (*weights, bias)

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
