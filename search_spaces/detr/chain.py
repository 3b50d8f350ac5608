"""The chain of units around the modules of one of mmdet's transformers."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from paretopath.elastic import ChannelGroup, Unit
from paretopath.paths import Condition, SearchSpace, Value
from search_spaces.blocks.spans import Group, Span
from search_spaces.detr.attention import Headed
from search_spaces.detr.decoding import ConditionalLayer, DecoderLayer, Refine
from search_spaces.detr.encoding import EncoderLayer, Tokenise
from search_spaces.detr.heads import Head
from search_spaces.detr.pieces import Kept, Piece
from search_spaces.detr.querying import QUERIES, LearnedPoints, LearnedQueries, Proposals
from search_spaces.detr.sampling import POINTS
from search_spaces.widths import channels


@dataclass(frozen=True)
class Chain:
    """Builds units for a space.

    Attributes:
        space: whose decisions say what units may do.
        detector: mmdet's, its modules are taken.
        exits: the decoder layers behind which there is one.
        shaping: decisions on which the number of tokens depends.
        divisor: of the hidden channels that are kept.
    """

    space: SearchSpace
    detector: Any
    exits: tuple[int, ...]
    shaping: tuple[str, ...]
    divisor: int

    def _shaped(self, *more: str) -> dict[str, dict[Value, dict[str, int]]]:
        """Decisions that change shapes alone; those that the space has."""
        return {n: {} for n in (*self.shaping, *more) if n in self.space.positions}

    def neck(self, widths: Kept, entries: Sequence[int]) -> Unit:
        """The neck and the tokens.

        Args:
            widths: by decision, the channels that its levels come with.
            entries: the channels of each level at its fullest, where decisions narrow them.
        """
        body = Tokenise(self.detector)
        readers: list[list[str]] = [[] for _ in entries]
        for level, layer in _reading(body.neck, len(entries)):
            readers[level].append(f"neck.{layer}")
        groups = [
            Group(f"level.{level}", size, 1, (), tuple(Span(name, 0, size) for name in names))
            for level, (size, names) in enumerate(zip(entries, readers, strict=True))
        ]
        return Piece("neck", body, groups=groups, kept={**self._shaped(), **widths})

    def encoder(self) -> list[Unit]:
        """Encoder layers."""
        scale = getattr(self.detector.encoder, "query_scale", None)  # DAB-DETR's
        return [
            self._layer(f"encoder.{i}", EncoderLayer(layer, scale), self._runs(f"encoder.{i}"))
            for i, layer in enumerate(self.detector.encoder.layers)
        ]

    def queries(self) -> Unit:
        """What queries start from."""
        detector = self.detector
        proposes = getattr(detector, "as_two_stage", False)
        body: nn.Module
        if proposes:
            body = Proposals(detector)
        elif hasattr(detector, "reference_points_fc"):
            body = LearnedPoints(detector)
        else:
            body = LearnedQueries(detector)
        most = detector.num_queries
        kept = self._shaped(QUERIES)
        if QUERIES in kept:
            counts = self.space[QUERIES].values
            kept[QUERIES] = {count: {QUERIES: int(count)} for count in counts}
        rows = [] if proposes else [ChannelGroup(most, ("rows",))]
        return Piece("queries", body, kept=kept, rows=rows if QUERIES in kept else ())

    def decoder(self) -> list[Unit]:
        """Decoder layers, each with its exit behind it."""
        units: list[Unit] = []
        for i, layer in enumerate(self.detector.decoder.layers):
            if i >= max(self.exits):
                break
            body = self._decoder_layer(i, layer)
            units.append(self._layer(f"decoder.{i}", body, reached(self.exits, i), QUERIES))
            if i + 1 in self.exits:
                units.append(
                    Piece(
                        f"exits.{i + 1}",
                        self._head(i),
                        kept=self._shaped(QUERIES),
                        requires=ends_at(self.exits, i + 1),
                        is_exit=True,
                    )
                )
        return units

    def _decoder_layer(self, i: int, layer: nn.Module) -> nn.Module:
        decoder, head = self.detector.decoder, self.detector.bbox_head
        refine: nn.Module | None = None
        if hasattr(decoder, "query_scale"):  # Conditional DETR, DAB-DETR
            if i > 0 and hasattr(decoder, "query_dim"):
                refine = Refine(head.fc_reg, eps=1e-5, looks_twice=True)
            return ConditionalLayer(layer, decoder, i, refine)
        point = getattr(decoder, "ref_point_head", None)  # DINO
        if i > 0 and getattr(self.detector, "with_box_refine", False):
            eps = 1e-3 if point is not None else 1e-5
            refine = Refine(head.reg_branches[i - 1], eps=eps, looks_twice=point is not None)
        return DecoderLayer(layer, refine=refine, point=point)

    def _head(self, i: int) -> Head:
        decoder, head = self.detector.decoder, self.detector.bbox_head
        layers = len(decoder.layers)
        if hasattr(head, "cls_branches"):
            norm = getattr(decoder, "norm", None) or nn.Identity()
            logits, boxes = head.cls_branches[i], head.reg_branches[i]
            return Head(head, norm, logits, boxes, uses_references=True, eps=1e-5, layers=layers)
        is_of_boxes = hasattr(decoder, "query_dim")
        uses = is_of_boxes or hasattr(decoder, "query_scale")
        boxes = head.fc_reg
        if not is_of_boxes:
            boxes = nn.Sequential(head.reg_ffn, head.activate, head.fc_reg)
        parts = (decoder.post_norm, head.fc_cls, boxes)
        if i + 1 < layers:  # mmdet's is one for all layers; here each exit has its own
            parts = copy.deepcopy(parts)
        eps = 1e-3 if is_of_boxes else 1e-5
        return Head(head, *parts, uses_references=uses, eps=eps, layers=layers)

    def _runs(self, name: str) -> Condition | None:
        return Condition(f"{name}.run", (True,)) if f"{name}.run" in self.space.positions else None

    def _layer(self, name: str, body: nn.Module, requires: Condition | None, *shaping: str) -> Unit:
        """A layer of a transformer, its hidden channels and heads narrowed by decisions."""
        groups = [body.ffn.groups("ffn", "ffn")]  # type: ignore[union-attr,operator]
        kept = self._shaped(*shaping)
        hidden = groups[0].entries
        ratio = f"{name}.ffn_ratio"
        if ratio in self.space.positions:
            shares = self.space[ratio].values
            kept[ratio] = {r: {"ffn": channels(hidden, r, self.divisor)} for r in shares}
        heads = f"{name}.heads"
        if heads in self.space.positions:
            part = body.attention
            assert isinstance(part, Headed)
            groups.append(part.groups("attention", "heads"))
            kept[heads] = {count: {"heads": int(count)} for count in self.space[heads].values}
        points = f"{name}.points"
        if points in self.space.positions:
            kept[points] = {count: {POINTS: int(count)} for count in self.space[points].values}
        return Piece(name, body, groups=groups, kept=kept, requires=requires)


def reached(exits: Sequence[int], layer: int) -> Condition | None:
    """Where a decoder layer stands before the exit."""
    beyond = tuple(e for e in exits if e > layer)
    return Condition("exit", beyond) if len(beyond) < len(exits) else None


def ends_at(exits: Sequence[int], layer: int) -> Condition | None:
    """Where a path ends behind so many decoder layers."""
    return Condition("exit", (layer,)) if len(exits) > 1 else None


def _reading(neck: nn.Module, levels: int) -> list[tuple[int, str]]:
    """The convolutions of a ``ChannelMapper`` that read the backbone's maps, with their levels."""
    if levels == 0:
        return []
    found = [(i, f"convs.{i}.conv") for i in range(levels)]
    if getattr(neck, "extra_convs", None):
        found.append((levels - 1, "extra_convs.0.conv"))
    return found
