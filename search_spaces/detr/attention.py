"""Attention of DETR's relatives with heads that can be left out, and their feed-forward networks.

The parameters are those of mmdet's modules. Projections of queries, keys and values, which PyTorch
keeps in one matrix, are layers of their own here, so that a head is a prefix of each. Deformable
attention takes the sizes of its maps from their shapes, never from tensors' values.
"""

from typing import Any

import torch
import torch.nn.functional as F
from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch
from torch import Tensor, nn

from paretopath.errors import InvalidValueError
from search_spaces.blocks.groups import Group
from search_spaces.detr.pieces import group, linear, part_of, write
from search_spaces.detr.states import Tokens


class Attention(nn.Module):
    """Every query looks at every key (Vaswani et al., arXiv 1706.03762).

    Args:
        original: mmcv's ``MultiheadAttention``.
        aligned: whether a position means the same on every path, so that what is added to it can be
            re-solved for it.
    """

    def __init__(self, original: Any, *, aligned: bool = True) -> None:
        super().__init__()
        packed: nn.MultiheadAttention = original.attn
        width = packed.embed_dim
        fused = nn.Linear(width, 3 * width, device="meta")
        fused.weight, fused.bias = packed.in_proj_weight, packed.in_proj_bias
        parts = (part_of(fused, slice(i * width, (i + 1) * width)) for i in range(3))
        self.query, self.key, self.value = parts
        self.out = linear(packed.out_proj)
        self.dropout = packed.dropout
        self.behind = nn.Sequential(original.proj_drop, original.dropout_layer)
        self.heads, self.head_width = packed.num_heads, packed.head_dim
        self.aligned = aligned

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, skip: Tensor, blocked: Tensor | None
    ) -> Tensor:
        """What the queries see, added to ``skip``.

        Args:
            query: (B, Q, C).
            key, value: (B, N, C).
            skip: (B, Q, C).
            blocked: bool, broadcast to (B, heads, Q, N): True where a query must not look.
        """
        out = F.scaled_dot_product_attention(
            self._heads(self.query(query)),
            self._heads(self.key(key)),
            self._heads(self.value(value)),
            attn_mask=None if blocked is None else ~blocked,
            dropout_p=self.dropout if self.training else 0.0,
        )
        seen = write(self.out, out.transpose(1, 2).flatten(2), skip if self.aligned else None)
        return skip + self.behind(seen)  # type: ignore[no-any-return]

    def _heads(self, x: Tensor) -> Tensor:
        """(B, N, heads * width) -> (B, heads, N, width)."""
        heads: Tensor = x.unflatten(-1, (-1, self.head_width))
        return heads.transpose(1, 2)

    def encode(self, x: Tensor, positions: Tensor, tokens: Tokens) -> Tensor:
        """Tokens (B, N, C) that look at one another."""
        query = x + positions
        return self(query, query, x, skip=x, blocked=tokens.padding[:, None, None])  # type: ignore[no-any-return]

    def look(
        self, x: Tensor, positions: Tensor, references: Tensor | None, tokens: Tokens
    ) -> Tensor:
        """Queries (B, Q, C) that look at tokens."""
        key, blocked = tokens.x + tokens.positions, tokens.padding[:, None, None]
        return self(x + positions, key, tokens.x, skip=x, blocked=blocked)  # type: ignore[no-any-return]

    def groups(self, prefix: str, name: str) -> Group:
        """Its heads, as the group ``name`` of a body that holds it as ``prefix``."""
        makers = [f"{prefix}.{part}" for part in ("query", "key", "value")]
        return group(name, self.heads, self.head_width, makers, f"{prefix}.out")


class DeformableAttention(nn.Module):
    """Each query looks at a few points of each map (Zhu et al., arXiv 2010.04159).

    Args:
        original: mmcv's ``MultiScaleDeformableAttention``.
        aligned: see :class:`Attention`.
    """

    def __init__(self, original: Any, *, aligned: bool = True) -> None:
        super().__init__()
        self.offsets = linear(original.sampling_offsets)
        self.weights = linear(original.attention_weights)
        self.value = linear(original.value_proj)
        self.out = linear(original.output_proj)
        self.dropout = original.dropout
        self.heads = original.num_heads
        self.head_width = self.value.out_features // self.heads
        self.levels, self.points = original.num_levels, original.num_points
        self.aligned = aligned

    def forward(self, query: Tensor, references: Tensor, tokens: Tokens, *, skip: Tensor) -> Tensor:
        """What the queries see, added to ``skip``.

        Args:
            query: (B, Q, C).
            references: (B, Q, L, 2) points, or (B, Q, L, 4) boxes, in shares of each map.
            tokens: of L maps.
            skip: (B, Q, C).
        """
        value = self.value(tokens.x).masked_fill(tokens.padding[..., None], 0.0)
        value = value.unflatten(-1, (-1, self.head_width))  # (B, N, heads, width)
        offsets = self.offsets(query).unflatten(-1, (-1, self.levels, self.points, 2))
        weights = self.weights(query).unflatten(-1, (-1, self.levels * self.points)).softmax(-1)
        weights = weights.unflatten(-1, (self.levels, self.points))
        shapes = tokens.levels.shapes
        if references.shape[-1] == 2:
            size = torch.tensor([(x, y) for y, x in shapes], dtype=query.dtype, device=query.device)
            places = references[:, :, None, :, None] + offsets / size[:, None]
        else:
            centre, extent = references[:, :, None, :, None].split(2, dim=-1)
            places = centre + offsets / self.points * extent * 0.5
        seen = multi_scale_deformable_attn_pytorch(value, shapes, places.to(value.dtype), weights)
        out = write(self.out, seen, skip if self.aligned else None)
        return skip + self.dropout(out)  # type: ignore[no-any-return]

    def encode(self, x: Tensor, positions: Tensor, tokens: Tokens) -> Tensor:
        """See :meth:`Attention.encode`."""
        assert tokens.references is not None
        return self(x + positions, tokens.references, tokens, skip=x)  # type: ignore[no-any-return]

    def look(
        self, x: Tensor, positions: Tensor, references: Tensor | None, tokens: Tokens
    ) -> Tensor:
        """See :meth:`Attention.look`.

        Args:
            x, positions, tokens: there.
            references: (B, Q, 2) or (B, Q, 4) in shares of the image.
        """
        assert references is not None
        ratios = tokens.ratios[:, None]
        if references.shape[-1] == 4:
            ratios = torch.cat([ratios, ratios], -1)
        return self(x + positions, references[:, :, None] * ratios, tokens, skip=x)  # type: ignore[no-any-return]

    def groups(self, prefix: str, name: str) -> Group:
        """See :meth:`Attention.groups`."""
        makers = [f"{prefix}.{part}" for part in ("value", "offsets", "weights")]
        return group(name, self.heads, self.head_width, makers, f"{prefix}.out")


class FeedForward(nn.Module):
    """Two linear layers, added to their input.

    Args:
        original: mmcv's ``FFN``.
        aligned: see :class:`Attention`.

    Raises:
        InvalidValueError: it has another number of layers.
    """

    def __init__(self, original: Any, *, aligned: bool = True) -> None:
        super().__init__()
        if original.num_fcs != 2:
            raise InvalidValueError(
                f"config: a feed-forward network must have two layers (num_fcs), "
                f"but got {original.num_fcs}"
            )
        first, second, last_dropout = original.layers
        self.fc1, self.act, self.dropout = linear(first[0]), first[1], first[2]
        self.fc2 = linear(second)
        self.behind = nn.Sequential(last_dropout, original.gamma2, original.dropout_layer)
        self.hidden = self.fc1.out_features
        self.aligned = aligned

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """(B, N, C) -> the same shape, added to ``skip``, which is ``x`` if not given."""
        skip = x if skip is None else skip
        hidden = self.dropout(self.act(self.fc1(x)))
        return skip + self.behind(write(self.fc2, hidden, skip if self.aligned else None))  # type: ignore[no-any-return]

    def groups(self, prefix: str, name: str) -> Group:
        """Its hidden channels; see :meth:`Attention.groups`."""
        return group(name, self.hidden, 1, [f"{prefix}.fc1"], f"{prefix}.fc2")
