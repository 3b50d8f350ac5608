"""Decoder layers: queries that look at one another and at tokens."""

from dataclasses import replace
from typing import Any

import torch
from mmdet.models.layers.transformer import coordinate_to_encoding, inverse_sigmoid
from torch import Tensor, nn

from paretopath.errors import InvalidValueError
from search_spaces.detr.attention import FeedForward
from search_spaces.detr.encoding import attention_of
from search_spaces.detr.querying import blocked_by
from search_spaces.detr.states import Queries


class Refine(nn.Module):
    """Boxes moved by what the last layer's queries say: the next references.

    Args:
        branch: mmdet's regression branch of that layer.
        eps: how near to 0 and 1 references are clamped.
        looks_twice: whether losses of the next layer teach this one (DINO).
    """

    def __init__(self, branch: nn.Module, *, eps: float, looks_twice: bool) -> None:
        super().__init__()
        self.branch = branch
        self.eps = eps
        self.looks_twice = looks_twice

    def forward(self, queries: Queries) -> Tensor:
        assert queries.references is not None
        moved = moved_from(queries.references.detach(), self.branch(queries.x), self.eps)
        return moved if self.looks_twice else moved.detach()


def moved_from(references: Tensor, by: Tensor, eps: float) -> Tensor:
    """Boxes (…, 4) in shares of the image.

    Args:
        references: (…, 2) or (…, 4).
        by: (…, 4) by how much each moves before the sigmoid.
        eps: how near to 0 and 1 references are clamped.
    """
    start = inverse_sigmoid(references, eps=eps)
    if start.shape[-1] < 4:
        start = torch.cat([start, torch.zeros_like(by[..., start.shape[-1] :])], -1)
    moved: Tensor = (by + start).sigmoid()
    return moved


class DecoderLayer(nn.Module):
    """A layer of DETR, Deformable DETR or DINO: queries -> queries.

    Args:
        original: mmdet's layer.
        refine: what moves the references first; None where they stay.
        point: DINO's network that makes positions of references; None elsewhere.
    """

    def __init__(
        self,
        original: Any,
        *,
        refine: nn.Module | None = None,
        point: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.self_attention = attention_of(original.self_attn)
        self.attention = attention_of(original.cross_attn)
        self.ffn = FeedForward(original.ffn)
        self.norms = original.norms
        self.refine = refine
        self.point = point

    def forward(self, queries: Queries) -> Queries:
        references = queries.references
        if self.refine is not None:
            references = self.refine(queries)
        start = references
        if references is not None and self.refine is not None:
            start = references.detach()
        x = queries.x
        positions = self._positions(start, queries)
        blocked = blocked_by(queries.denoising, x.shape[1], x.device)
        near, keys = x + positions, queries.keys
        x = self.norms[0](self.self_attention(near, near, x, skip=x, blocked=blocked, keys=keys))
        x = self.norms[1](self.attention.look(x, positions, start, queries.tokens, keys))
        return replace(queries, x=self.norms[2](self.ffn(x, keys=keys)), references=references)

    def _positions(self, references: Tensor | None, queries: Queries) -> Tensor:
        """Those that queries came with; DINO's are of the references as the first map has them."""
        if self.point is None:
            assert queries.positions is not None
            return queries.positions
        assert references is not None
        ratios = queries.tokens.ratios[:, :1]
        boxes = references * torch.cat([ratios, ratios], -1)
        encoded = coordinate_to_encoding(boxes, num_feats=queries.x.shape[2])
        found: Tensor = self.point(encoded.to(queries.x.dtype))
        return found


class ConditionalLayer(nn.Module):
    """A layer of Conditional DETR or DAB-DETR, its attentions mmdet's own: queries -> queries.

    Args:
        original: mmdet's layer.
        decoder: mmdet's, of which it is one.
        index: of the layer.
        refine: see :class:`DecoderLayer`.
    """

    def __init__(
        self, original: Any, decoder: Any, index: int, refine: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.self_attention = original.self_attn
        self.attention = original.cross_attn
        self.ffn = FeedForward(original.ffn)
        self.norms = original.norms
        self.refine = refine
        self.is_first = index == 0
        if isinstance(decoder.query_scale, nn.Embedding):
            raise InvalidValueError(
                "config: decoder.query_scale_type must be cond_elewise or cond_scalar, "
                "but got fix_elewise"
            )
        self.scale = None if self.is_first else decoder.query_scale
        self.is_of_boxes = hasattr(decoder, "query_dim")  # DAB-DETR's
        self.point = decoder.ref_point_head if self.is_of_boxes else None
        self.anchor = getattr(decoder, "ref_anchor_head", None)

    def forward(self, queries: Queries) -> Queries:
        references = queries.references if self.refine is None else self.refine(queries)
        assert references is not None
        x, tokens = queries.x, queries.tokens
        width = x.shape[2]
        encoded = coordinate_to_encoding(references, num_feats=width // 2).to(x.dtype)
        positions = queries.positions if self.point is None else self.point(encoded)
        encoded = encoded[..., :width]
        if self.scale is not None:
            encoded = encoded * self.scale(x)
        if self.anchor is not None:
            shares = self.anchor(x).sigmoid() / references[..., 2:]
            encoded = encoded * shares.flip(-1).repeat_interleave(width // 2, -1)
        x = self.norms[0](
            self.self_attention(query=x, key=x, query_pos=positions, key_pos=positions)
        )
        x = self.norms[1](
            self.attention(
                query=x,
                key=tokens.x,
                query_pos=positions,
                key_pos=tokens.positions,
                key_padding_mask=tokens.padding,
                ref_sine_embed=encoded,
                is_first=self.is_first,
            )
        )
        x = self.norms[2](self.ffn(x, keys=queries.keys))
        return replace(queries, x=x, references=references)
