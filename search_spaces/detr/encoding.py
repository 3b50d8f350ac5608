"""From feature maps to encoded tokens: neck, positions, encoder layers."""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.detr.attention import Attention, FeedForward
from search_spaces.detr.sampling import DeformableAttention
from search_spaces.detr.states import Levels, Maps, Tokens


class Tokenise(nn.Module):
    """The neck, and its maps' positions as tokens: maps -> tokens.

    Args:
        detector: mmdet's, a ``DetectionTransformer``.
    """

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.neck = detector.neck if detector.with_neck else nn.Identity()
        self.encoding = detector.positional_encoding
        self.is_deformable = hasattr(detector, "level_embed")
        self.level_embed = nn.Parameter(detector.level_embed) if self.is_deformable else None

    def forward(self, maps: Maps) -> Tokens:
        features = self.neck(maps.features)
        features = features if self.is_deformable else features[-1:]
        masks = [_padding_of(feature, maps.padding) for feature in features]
        positions = []
        for level, (feature, mask) in enumerate(zip(features, masks, strict=True)):
            found = self.encoding(mask).to(feature.dtype).flatten(2).transpose(1, 2)
            embed = self.level_embed
            positions.append(found if embed is None else found + embed[level])
        levels = Levels(tuple((int(f.shape[2]), int(f.shape[3])) for f in features))
        ratios = torch.stack([_valid_ratio(mask) for mask in masks], 1).to(features[0].dtype)
        return Tokens(
            x=torch.cat([feature.flatten(2).transpose(1, 2) for feature in features], 1),
            positions=torch.cat(positions, 1),
            padding=torch.cat([mask.flatten(1) for mask in masks], 1),
            ratios=ratios,
            references=_references(levels, ratios) if self.is_deformable else None,
            sizes=maps.sizes,
            levels=levels,
            targets=maps.targets,
        )


def _padding_of(feature: Tensor, padding: Tensor) -> Tensor:
    """(B, Y, X) bool of a map: where the nearest pixel is padding."""
    resized = F.interpolate(padding[:, None].float(), size=feature.shape[-2:])
    return resized[:, 0] > 0.5


def _valid_ratio(mask: Tensor) -> Tensor:
    """(B, 2) the share of a map's width and height that is no padding (mmdet's DeformableDETR)."""
    _, height, width = mask.shape
    rows, columns = (~mask[:, :, 0]).sum(1), (~mask[:, 0, :]).sum(1)
    return torch.stack([columns.float() / width, rows.float() / height], -1)


def centres(shape: tuple[int, int], like: Tensor) -> Tensor:
    """(1, Y, X, 2) the x and y of a map's pixels' centres, in pixels."""
    y, x = (torch.arange(n, device=like.device, dtype=torch.float32) + 0.5 for n in shape)
    return torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)[None]


def _references(levels: Levels, ratios: Tensor) -> Tensor:
    """(B, N, L, 2) where each token lies, in shares of each map (mmdet's encoder's)."""
    points = []
    for level, (height, width) in enumerate(levels.shapes):
        size = ratios[:, level] * ratios.new_tensor([width, height])
        points.append((centres((height, width), ratios) / size[:, None, None]).flatten(1, 2))
    return torch.cat(points, 1)[:, :, None] * ratios[:, None]


class EncoderLayer(nn.Module):
    """Tokens that look at one another, then a feed-forward network: tokens -> tokens.

    Args:
        original: mmdet's layer.
        scale: DAB-DETR's network that scales positions by the tokens; None elsewhere.
    """

    def __init__(self, original: Any, scale: nn.Module | None = None) -> None:
        super().__init__()
        self.attention = attention_of(original.self_attn)
        self.ffn = FeedForward(original.ffn)
        self.norms = original.norms
        self.scale = scale

    def forward(self, tokens: Tokens) -> Tokens:
        x, positions = tokens.x, tokens.positions
        if self.scale is not None:
            positions = positions * self.scale(x)
        x = self.norms[0](self.attention.encode(x, positions, tokens))
        return replace(tokens, x=self.norms[1](self.ffn(x)))


def attention_of(original: Any) -> Attention | DeformableAttention:
    """The form here of one of mmcv's attentions."""
    if hasattr(original, "sampling_offsets"):
        return DeformableAttention(original)
    return Attention(original)
