"""Deformable attention with heads and sampling points that can be left out.

Reading the maps at sampled points is what most of its energy goes to, and no layer's width changes
it: heads and points do.
"""

from typing import Any, Self

import torch
from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch
from torch import Tensor, nn

from paretopath.elastic.compensation import Operands
from paretopath.elastic.layers import fill
from search_spaces.blocks.layers import BlockLinear, Part, linear
from search_spaces.detr.attention import Headed
from search_spaces.detr.pieces import write
from search_spaces.detr.states import Tokens

POINTS = "points"
"""The group of entries that says at how many points of each map a head looks."""


class PointLinear(BlockLinear):
    """What each head says of each of its points: (..., C) -> (..., heads * levels * points * n).

    Heads and points are its first ones, of every map.

    Attributes:
        grid: heads, levels, points, n at the fullest.
        points: those that are kept.
    """

    grid: tuple[int, int, int, int]
    points: Part

    @classmethod
    def over(cls, layer: nn.Linear, name: str, grid: tuple[int, int, int, int]) -> Self:
        """The layer that shares another's parameters.

        Args:
            layer: whose outputs lie as ``grid``.
            name: in its body.
            grid: see above.
        """
        made = cls.of(layer)
        made.name, made.grid = name, grid
        made.reads, made.makes = (Part(layer.in_features),), Part(layer.out_features)
        made.points = Part(grid[2], POINTS, grid[2])
        return made

    def operands(self, inputs: int, outputs: int) -> Operands:
        """See :meth:`ElasticLinear.operands`; ``outputs`` are those of the heads that are kept."""
        weight, bias = super().operands(inputs, outputs)
        return self._of_points(weight), None if bias is None else self._of_points(bias)

    def _of_points(self, rows: Tensor) -> Tensor:
        split: Tensor = rows.unflatten(0, (-1, *self.grid[1:]))
        return split[:, :, : self.points.kept()].flatten(0, 3)

    def plain(self) -> nn.Linear:
        """The layer as it runs."""
        weight, bias = self.operands(self.in_features, self.makes.kept())
        layer = nn.Linear(self.in_features, len(weight), bias=bias is not None, device="meta")
        return fill(layer, weight=weight, bias=bias)


class DeformableAttention(Headed):
    """Each query looks at a few points of each map (Zhu et al., arXiv 2010.04159).

    Args:
        original: mmcv's ``MultiScaleDeformableAttention``.
        name: in its body.
    """

    makers = ("value", "offsets", "weights")

    def __init__(self, original: Any, name: str = "attention") -> None:
        value = linear(original.value_proj)
        heads = original.num_heads
        super().__init__(heads, value.out_features // heads, linear(original.output_proj))
        self.value = value
        self.levels, self.points = original.num_levels, original.num_points
        grid = (heads, self.levels, self.points)
        self.offsets: nn.Linear = PointLinear.over(
            original.sampling_offsets, f"{name}.offsets", (*grid, 2)
        )
        self.weights: nn.Linear = PointLinear.over(
            original.attention_weights, f"{name}.weights", (*grid, 1)
        )
        self.dropout = original.dropout

    def forward(
        self,
        query: Tensor,
        references: Tensor,
        tokens: Tokens,
        *,
        skip: Tensor,
        keys: Tensor | None = None,
    ) -> Tensor:
        """What the queries see, added to ``skip``.

        Args:
            query: (B, Q, C).
            references: (B, Q, L, 2) points, or (B, Q, L, 4) boxes, in shares of each map.
            tokens: of L maps.
            skip: (B, Q, C).
            keys: (B, Q) see :class:`~paretopath.elastic.Onto`.
        """
        value = self.value(tokens.x).masked_fill(tokens.padding[..., None], 0.0)
        value = value.unflatten(-1, (-1, self.head_width))  # (B, N, heads, width)
        heads = value.shape[2]
        offsets = self.offsets(query).unflatten(-1, (heads, self.levels, -1, 2))
        weights = self.weights(query).unflatten(-1, (heads, -1)).softmax(-1)
        weights = weights.unflatten(-1, (self.levels, -1))
        shapes = tokens.levels.shapes
        if references.shape[-1] == 2:
            size = torch.tensor([(x, y) for y, x in shapes], dtype=query.dtype, device=query.device)
            places = references[:, :, None, :, None] + offsets / size[:, None]
        else:
            centre, extent = references[:, :, None, :, None].split(2, dim=-1)
            places = centre + offsets / self.points * extent * 0.5
        seen = multi_scale_deformable_attn_pytorch(value, shapes, places.to(value.dtype), weights)
        return skip + self.dropout(write(self.out, seen, skip, keys))  # type: ignore[no-any-return]

    def encode(self, x: Tensor, positions: Tensor, tokens: Tokens) -> Tensor:
        """See :meth:`Attention.encode`."""
        assert tokens.references is not None
        return self(x + positions, tokens.references, tokens, skip=x)  # type: ignore[no-any-return]

    def look(
        self,
        x: Tensor,
        positions: Tensor,
        references: Tensor | None,
        tokens: Tokens,
        keys: Tensor | None,
    ) -> Tensor:
        """See :meth:`Attention.look`.

        Args:
            x, positions, tokens, keys: there.
            references: (B, Q, 2) or (B, Q, 4) in shares of the image.
        """
        assert references is not None
        ratios = tokens.ratios[:, None]
        if references.shape[-1] == 4:
            ratios = torch.cat([ratios, ratios], -1)
        near = references[:, :, None] * ratios
        return self(x + positions, near, tokens, skip=x, keys=keys)  # type: ignore[no-any-return]
