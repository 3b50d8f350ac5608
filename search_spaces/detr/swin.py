"""mmdet's Swin transformers as backbones: blocks skipped, feed-forward networks narrowed.

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


class Block(nn.Module):
    """Attention within windows, then a feed-forward network: maps -> maps."""

    def __init__(self, original: Any) -> None:
        super().__init__()
        self.norm1, self.attention = original.norm1, original.attn
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
        keep_ratios: shares of the hidden channels that a block may keep.
        divisor: of the channels that are kept.
    """

    depths: tuple[int, ...]
    keep_ratios: tuple[float, ...]
    divisor: int
    measures_norms = False

    @property
    def blocks(self) -> list[str]:
        """Names of its blocks."""
        return [
            f"{PREFIX}stages.{s}.blocks.{b}" for s, d in enumerate(self.depths) for b in range(d)
        ]

    @property
    def skippable(self) -> list[str]:
        """All blocks: each adds to its input."""
        return self.blocks

    def decisions(self, skipped: frozenset[str]) -> list[Decision]:
        """Its decisions."""
        found = []
        for name in self.blocks:
            runs = Condition(f"{name}.run", (True,)) if name in skipped else None
            if runs is not None:
                found.append(Decision(f"{name}.run", (False, True)))
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
                if len(self.keep_ratios) > 1:
                    hidden = body.ffn.hidden
                    kept[f"{name}.keep_ratio"] = {
                        ratio: {"ffn": channels(hidden, ratio, self.divisor)}
                        for ratio in self.keep_ratios
                    }
                groups = [body.ffn.groups("ffn", "ffn")]
                runs = Condition(f"{name}.run", (True,)) if name in skipped else None
                units.append(Piece(name, body, groups=groups, kept=kept, requires=runs))
            output = Output(getattr(module, f"norm{s}", None), stage.downsample)
            units.append(Piece(f"{PREFIX}stages.{s}.output", output, kept=shaping))
        return units
