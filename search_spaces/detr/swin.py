"""mmdet's Swin transformers as backbones: blocks skipped, heads left out, feed-forward networks
narrowed.

Liu et al., "Swin Transformer" (ICCV 2021, arXiv 2103.14030). The map that goes on is (B, Y, X, C).
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from paretopath.elastic import Unit
from paretopath.paths import Condition, Decision, Value
from search_spaces.blocks.heads import find_heads
from search_spaces.detr.attention import FeedForward
from search_spaces.detr.pieces import Piece
from search_spaces.detr.states import Maps
from search_spaces.widths import channels

PREFIX = "backbone."


class Stem(nn.Module):
    """Patch embedding: images -> maps."""

    def __init__(self, swin: Any) -> None:
        super().__init__()
        self.patch_embed = swin.patch_embed
        self.dropout = swin.drop_after_pos

    def forward(self, state: Any) -> Maps:
        maps = Maps.of(state)
        x, size = self.patch_embed(maps.x)
        return replace(maps, x=self.dropout(x).unflatten(1, size))


class WindowAttention(nn.Module):
    """mmdet's ``WindowMSA``, which takes the width of a head from its input; this one knows it.

    Args:
        original: whose modules and parameters it takes.
    """

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.num_heads, self.scale = original.num_heads, original.scale
        self.relative_position_bias_table = original.relative_position_bias_table
        self.register_buffer("relative_position_index", original.relative_position_index)
        self.qkv, self.proj = original.qkv, original.proj
        self.attn_drop, self.proj_drop = original.attn_drop, original.proj_drop

    def forward(self, windows: Tensor, mask: Tensor | None = None) -> Tensor:
        """What the N positions of a window see of one another.

        Args:
            windows: (B * n, N, C).
            mask: (n, N, N) what is added where shifted windows are of parts; None elsewhere.
        """
        split = self.qkv(windows).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = split.permute(2, 0, 3, 1, 4)  # (B * n, heads, N, width) each
        index: Tensor = self.relative_position_index  # type: ignore[assignment]
        bias = self.relative_position_bias_table[index].permute(2, 0, 1)  # (heads, N, N)
        weights = (query * self.scale) @ key.transpose(-2, -1) + bias
        if mask is not None:
            by_image = weights.unflatten(0, (-1, len(mask))) + mask[:, None]
            weights = by_image.flatten(0, 1)
        seen = self.attn_drop(weights.softmax(-1)) @ value
        out: Tensor = self.proj_drop(self.proj(seen.transpose(1, 2).flatten(2)))
        return out


class Block(nn.Module):
    """Attention within windows, then a feed-forward network: maps -> maps."""

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.norm1, self.attention = original.norm1, original.attn
        self.attention.w_msa = WindowAttention(original.attn.w_msa)
        self.norm2, self.ffn = original.norm2, FeedForward(original.ffn)

    def forward(self, maps: Maps) -> Maps:
        size = tuple(maps.x.shape[1:3])
        x = maps.x.flatten(1, 2)
        with _of_one_kind(x):
            x = x + self.attention(self.norm1(x), size)
        x = self.ffn(self.norm2(x), skip=x)
        return replace(maps, x=x.unflatten(1, size))


def _of_one_kind(x: Tensor) -> AbstractContextManager[Any]:
    """Lets mmdet's mask of shifted windows, of float32, be added to what has half precision."""
    if x.dtype != torch.bfloat16:
        return nullcontext()
    return torch.autocast(x.device.type, torch.bfloat16)


class Output(nn.Module):
    """The end of a stage: its map is kept for the neck, and merged for the next stage."""

    def __init__(self, norm: nn.Module | None, downsample: nn.Module | None) -> None:
        super().__init__()
        self.norm, self.downsample = norm, downsample

    def forward(self, maps: Maps) -> Maps:
        x, kept = maps.x, maps.kept
        if self.norm is not None:
            kept = (*kept, self.norm(x).permute(0, 3, 1, 2).contiguous())
        if self.downsample is not None:
            merged, size = self.downsample(x.flatten(1, 2), tuple(x.shape[1:3]))
            x = merged.unflatten(1, size)
        return replace(maps, x=x, kept=kept)


@dataclass(frozen=True)
class SwinBackbone:
    """The paths of a Swin transformer; see :class:`~search_spaces.detr.backbones.Backbone`.

    Attributes:
        depths: blocks of each stage.
        heads: by stage, how many attention heads a block may keep.
        keep_ratios: shares of the hidden channels that a block may keep.
        divisor: of the channels that are kept.
    """

    depths: tuple[int, ...]
    heads: tuple[tuple[int, ...], ...]
    keep_ratios: tuple[float, ...]
    divisor: int
    measures_norms = False

    @property
    def blocks(self) -> dict[str, tuple[int, ...]]:
        """Its blocks by name: how many heads each may keep."""
        return {
            f"{PREFIX}stages.{s}.blocks.{b}": self.heads[s]
            for s, depth in enumerate(self.depths)
            for b in range(depth)
        }

    @property
    def skippable(self) -> list[str]:
        """All blocks: each adds to its input."""
        return list(self.blocks)

    def decisions(self, skipped: frozenset[str]) -> list[Decision]:
        """Its decisions."""
        found = []
        for name, heads in self.blocks.items():
            runs = Condition(f"{name}.run", (True,)) if name in skipped else None
            if runs is not None:
                found.append(Decision(f"{name}.run", (False, True)))
            if len(heads) > 1:
                found.append(Decision(f"{name}.heads", heads, runs))
            if len(self.keep_ratios) > 1:
                found.append(Decision(f"{name}.keep_ratio", self.keep_ratios, runs))
        return found

    def widths(self) -> dict[str, dict[Value, dict[str, int]]]:
        """None: the maps keep their channels."""
        return {}

    def level_entries(self) -> list[int]:
        """See :meth:`widths`."""
        return []

    def units(self, module: Any, skipped: frozenset[str], around: Sequence[str]) -> list[Unit]:
        """Its units around mmdet's modules."""
        shaping: dict[str, dict[Value, dict[str, int]]] = {name: {} for name in around}
        units: list[Unit] = [Piece(f"{PREFIX}stem", Stem(module), kept=shaping)]
        for s, stage in enumerate(module.stages):
            for b, original in enumerate(stage.blocks):
                name = f"{PREFIX}stages.{s}.blocks.{b}"
                body, kept = Block(original), dict(shaping)
                groups = [body.ffn.groups("ffn", "ffn")]
                if len(self.heads[s]) > 1:
                    (heads,) = find_heads(body)
                    groups.append(heads)
                    kept[f"{name}.heads"] = {count: {heads.name: count} for count in self.heads[s]}
                if len(self.keep_ratios) > 1:
                    hidden = body.ffn.hidden
                    kept[f"{name}.keep_ratio"] = {
                        ratio: {"ffn": channels(hidden, ratio, self.divisor)}
                        for ratio in self.keep_ratios
                    }
                runs = Condition(f"{name}.run", (True,)) if name in skipped else None
                units.append(Piece(name, body, groups=groups, kept=kept, requires=runs))
            output = Output(getattr(module, f"norm{s}", None), stage.downsample)
            units.append(Piece(f"{PREFIX}stages.{s}.output", output, kept=shaping))
        return units
