"""From encoded tokens to queries: learned ones, or the tokens that look most like objects."""

from dataclasses import replace
from typing import Any

import torch
from mmdet.models.detectors.deformable_detr import DeformableDETR
from torch import Tensor, nn

from search_spaces.detr.encoding import centres
from search_spaces.detr.objects import instances
from search_spaces.detr.pieces import Count, Rows
from search_spaces.detr.states import Boxes, Denoising, Proposed, Queries, Tokens

QUERIES = "queries"
"""The decision, and the group of entries, that says how many there are."""


class LearnedQueries(nn.Module):
    """Queries that are the same for all images: tokens -> queries.

    Args:
        detector: mmdet's DETR, Conditional DETR or DAB-DETR.
    """

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.rows = Rows(detector.query_embedding, QUERIES)
        self.width = detector.embed_dims
        self.are_boxes = hasattr(detector, "query_dim")  # DAB-DETR's
        point = None if self.are_boxes else getattr(detector.decoder, "ref_point_head", None)
        self.point = point  # Conditional DETR's: of the position

    def forward(self, tokens: Tokens) -> Queries:
        rows: Tensor = self.rows().expand(len(tokens.x), -1, -1)
        x = rows.new_zeros(*rows.shape[:2], self.width)
        if self.are_boxes:
            return Queries(x, None, rows.sigmoid(), tokens, _in_order(rows))
        references = None if self.point is None else self.point(rows).sigmoid()[..., :2]
        return Queries(x, rows, references, tokens, _in_order(rows))


class LearnedPoints(nn.Module):
    """Deformable DETR's learned queries, each with a point: tokens -> queries."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.rows = Rows(detector.query_embedding, QUERIES)
        self.point = detector.reference_points_fc

    def forward(self, tokens: Tokens) -> Queries:
        positions, x = self.rows().expand(len(tokens.x), -1, -1).chunk(2, dim=-1)
        return Queries(x, positions, self.point(positions).sigmoid(), tokens, _in_order(x))


def _in_order(rows: Tensor) -> Tensor:
    """(B, Q) the index of each row (B, Q, C)."""
    return torch.arange(rows.shape[1], device=rows.device).expand(len(rows), -1)


class Proposals(nn.Module):
    """The tokens that look most like objects become queries, the surest first: tokens -> queries.

    Deformable DETR's second form, and DINO. In training with targets, DINO's denoising queries
    come before them.

    Args:
        detector: mmdet's.
    """

    def __init__(self, detector: Any) -> None:
        super().__init__()
        last = detector.decoder.num_layers  # of the branches: mmdet's for the proposals
        self.logits = detector.bbox_head.cls_branches[last]
        self.boxes = detector.bbox_head.reg_branches[last]
        self.memory = nn.Sequential(detector.memory_trans_fc, detector.memory_trans_norm)
        self.count = Count(detector.num_queries, QUERIES)
        noise = getattr(detector, "dn_query_generator", None)
        self.noise = noise
        if noise is not None:
            self.rows = Rows(detector.query_embedding, QUERIES)
        else:
            self.positions = nn.Sequential(detector.pos_trans_fc, detector.pos_trans_norm)

    def forward(self, tokens: Tokens) -> Queries:
        proposed, is_inside = _grid(tokens)
        known = tokens.padding[..., None] | ~is_inside
        memory = self.memory(tokens.x.masked_fill(known, 0.0))
        logits = self.logits(memory)
        raw = self.boxes(memory) + inverse_of(proposed).masked_fill(known, float("inf"))
        rank = logits.max(-1)[0] if self.noise is not None else logits[..., 0]
        keys = rank.topk(self.count(), dim=1)[1]
        best = keys[..., None]
        chosen = raw.gather(1, best.expand(-1, -1, 4))
        detached = chosen.detach()
        queries = replace(self._of_proposals(detached, tokens), keys=keys)
        if not (self.training and tokens.targets is not None):
            return queries
        if self.noise is None:  # of all tokens, by mmdet's loss
            return replace(queries, proposals=Proposed(Boxes(logits, raw.sigmoid())))
        logits = logits.gather(1, best.expand(-1, -1, logits.shape[-1]))
        queries = replace(queries, proposals=Proposed(Boxes(logits, chosen.sigmoid())))
        return self._with_denoising(queries, detached)

    def _of_proposals(self, chosen: Tensor, tokens: Tokens) -> Queries:
        if self.noise is not None:
            rows = self.rows().expand(len(chosen), -1, -1)
            return Queries(rows, None, chosen.sigmoid(), tokens)
        embedded = DeformableDETR.get_proposal_pos_embed(chosen)
        positions, x = self.positions(embedded).chunk(2, dim=-1)
        return Queries(x, positions, chosen.sigmoid(), tokens)

    def _with_denoising(self, queries: Queries, chosen: Tensor) -> Queries:
        targets = queries.tokens.targets
        assert targets is not None and self.noise is not None
        samples = instances(targets, queries.tokens.sizes)
        if not any(len(sample.gt_instances) for sample in samples):
            return queries
        labels, boxes, _, meta = self.noise(samples)
        return replace(
            queries,
            x=torch.cat([labels, queries.x], 1),
            references=torch.cat([boxes, chosen], 1).sigmoid(),
            keys=None,
            denoising=Denoising(meta["num_denoising_queries"], meta["num_denoising_groups"]),
        )


def inverse_of(boxes: Tensor) -> Tensor:
    """log(p / (1 - p)), unbounded."""
    return torch.log(boxes / (1 - boxes))


def _grid(tokens: Tokens) -> tuple[Tensor, Tensor]:
    """A box (B, N, 4) around each token, and whether (B, N, 1) it lies well inside the image.

    mmdet's ``gen_encoder_output_proposals``, the maps' sizes taken from their shapes.
    """
    boxes, start = [], 0
    for level, (height, width) in enumerate(tokens.levels.shapes):
        mask = tokens.padding[:, start : start + height * width].unflatten(1, (height, width))
        rows, columns = (~mask[:, :, 0]).sum(1), (~mask[:, 0, :]).sum(1)
        size = torch.stack([columns, rows], -1)[:, None, None]  # (B, 1, 1, 2)
        centre = centres((height, width), tokens.x) / size
        extent = torch.full_like(centre, 0.05 * 2.0**level)
        boxes.append(torch.cat([centre, extent], -1).flatten(1, 2))
        start += height * width
    found = torch.cat(boxes, 1)
    inside = ((found > 0.01) & (found < 0.99)).all(-1, keepdim=True)
    return found, inside


def blocked_by(denoising: Denoising | None, queries: int, device: torch.device) -> Tensor | None:
    """(Q, Q) True where a query must not look at another: denoising groups are for themselves.

    Args:
        denoising: the first queries.
        queries: all of them.
        device: of the result.
    """
    if denoising is None:
        return None
    group = torch.arange(queries, device=device) // (denoising.queries // denoising.groups)
    group[denoising.queries :] = denoising.groups
    is_noisy = group < denoising.groups
    return (group[:, None] != group[None]) & is_noisy[None]
