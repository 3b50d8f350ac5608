"""Two-stage detectors: a pyramid of maps, regions that may hold objects, a head for each region.

Ren et al., "Faster R-CNN" (arXiv 1506.01497); Lin et al., "Feature Pyramid Networks" (arXiv
1612.03144). The number of regions is fixed, so that a path's cost is: the best are kept, and where
there are fewer, empty ones take their places.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torchvision.ops import batched_nms

from paretopath.elastic import Batched
from paretopath.tasks.detection.objects import Objects
from search_spaces.detr.objects import instances
from search_spaces.detr.pieces import Count
from search_spaces.detr.states import Levels, Maps

PROPOSALS = "proposals"
"""The decision, and the group of entries, that says how many regions there are."""


@dataclass(frozen=True)
class Regions(Batched):
    """Where objects may be.

    Attributes:
        maps: of the pyramid.
        boxes: (B, R, 4) x0, y0, x1, y1 in pixels, the likeliest first; 0 in unused places.
        valid: (B, R) bool, whether a place is used.
        logits, deltas: of all anchors, a map for each level.
        sizes: (B, 2) of the images.
        shape: height and width of the padded images.
        targets: in training.
    """

    maps: tuple[Tensor, ...]
    boxes: Tensor
    valid: Tensor
    logits: tuple[Tensor, ...]
    deltas: tuple[Tensor, ...]
    sizes: Tensor
    shape: Levels
    targets: Objects | None = None


class Pyramid(nn.Module):
    """A neck of several levels: maps -> maps."""

    def __init__(self, neck: nn.Module) -> None:
        super().__init__()
        self.neck = neck

    def forward(self, maps: Maps) -> Maps:
        return replace(maps, x=tuple(self.neck(maps.features)), kept=())


class Propose(nn.Module):
    """The region proposal network: maps -> regions.

    Args:
        rpn: mmdet's ``RPNHead``.
        learning: its settings in training; the head's own elsewhere.
    """

    def __init__(self, rpn: Any, learning: Any) -> None:
        super().__init__()
        self.rpn = rpn
        self.count = Count(int(rpn.test_cfg.max_per_img), PROPOSALS)
        self.learning = learning

    def forward(self, maps: Maps) -> Regions:
        logits, deltas = self.rpn(maps.x)
        learns = self.training and maps.targets is not None
        settings = self.learning if learns else self.rpn.test_cfg
        most = int(settings.max_per_img) if learns else self.count()
        boxes, scores, levels = self._candidates(
            [x.detach() for x in logits], [x.detach() for x in deltas], int(settings.nms_pre)
        )
        y, x = maps.sizes[:, None].to(boxes).split(1, dim=-1)
        boxes = torch.minimum(boxes.clamp(min=0), torch.cat([x, y, x, y], -1))
        extent = boxes[..., 2:] - boxes[..., :2]
        scores = scores.masked_fill((extent <= 0).any(-1), -1.0)
        threshold, most = float(settings.nms.iou_threshold), min(most, boxes.shape[1])
        kept = torch.stack(
            [
                keep_best(one, score, levels, threshold, most)
                for one, score in zip(boxes, scores, strict=True)
            ]
        )
        valid = kept >= 0
        chosen = boxes.gather(1, kept.clamp(min=0)[..., None].expand(-1, -1, 4))
        return Regions(
            maps=maps.x,
            boxes=chosen.masked_fill(~valid[..., None], 0.0),
            valid=valid,
            logits=tuple(logits),
            deltas=tuple(deltas),
            sizes=maps.sizes,
            shape=Levels((tuple(map(int, maps.padding.shape[1:])),)),  # type: ignore[arg-type]
            targets=maps.targets,
        )

    def _candidates(
        self, logits: list[Tensor], deltas: list[Tensor], most: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The best anchors of each level: boxes (B, N, 4), scores (B, N), levels (N,)."""
        sizes = [tuple(x.shape[-2:]) for x in logits]
        device, kind = logits[0].device, logits[0].dtype
        anchors = self.rpn.prior_generator.grid_priors(sizes, dtype=kind, device=device)
        boxes, scores, levels = [], [], []
        for level, (logit, delta, anchor) in enumerate(zip(logits, deltas, anchors, strict=True)):
            score = logit.permute(0, 2, 3, 1).flatten(1)  # one class, a score for each anchor
            best, places = score.sigmoid().topk(min(most, score.shape[1]), dim=1)
            moved = delta.permute(0, 2, 3, 1).reshape(len(delta), -1, 4)
            moved = moved.gather(1, places[..., None].expand(-1, -1, 4))
            decoded = self.rpn.bbox_coder.decode(anchor[places].flatten(0, 1), moved.flatten(0, 1))
            boxes.append(decoded.view_as(moved))
            scores.append(best)
            levels.append(torch.full(best.shape[1:], level, device=device))
        return torch.cat(boxes, 1), torch.cat(scores, 1), torch.cat(levels)


@torch.library.custom_op("paretopath::nms", mutates_args=())
def keep_best(boxes: Tensor, scores: Tensor, levels: Tensor, threshold: float, most: int) -> Tensor:
    """Non-maximum suppression to a fixed number: indices (most,), the surest first, -1 after them.

    Args:
        boxes: (N, 4).
        scores: (N,); under 0 where there is no box.
        levels: (N,) boxes suppress those of their own level alone.
        threshold: the overlap from which a box suppresses less sure ones.
        most: places; at most N.
    """
    kept = batched_nms(boxes.float(), scores.float(), levels, threshold)
    kept = kept[scores[kept] >= 0][:most]
    return torch.cat([kept, kept.new_full((most - len(kept),), -1)])


@keep_best.register_fake
def _(boxes: Tensor, scores: Tensor, levels: Tensor, threshold: float, most: int) -> Tensor:
    return levels.new_empty(most)


class Align(nn.Module):
    """A square of features for each region, from the level that suits its size (RoIAlign).

    Args:
        extractor: mmdet's ``SingleRoIExtractor``.
    """

    def __init__(self, extractor: Any) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, maps: tuple[Tensor, ...], boxes: Tensor) -> Tensor:
        """(B * R, C, size, size) features of regions (B, R, 4)."""
        maps = maps[: self.extractor.num_inputs]
        if not boxes.is_meta:
            kind = maps[0].dtype  # torchvision has no RoIAlign of bfloat16 on a CPU
            pooled = self.extractor(tuple(x.float() for x in maps), bbox2roi(list(boxes.float())))
            return pooled.to(kind)  # type: ignore[no-any-return]
        # without values there is no telling which level a region suits: they share them evenly
        rois = boxes.new_empty(boxes.shape[0] * boxes.shape[1], 5)
        levels = zip(self.extractor.roi_layers, maps, rois.chunk(len(maps)), strict=False)
        return torch.cat([layer(feature, part) for layer, feature, part in levels])


def sampled(regions: Regions, assigner: Any, sampler: Any) -> tuple[Tensor, Tensor, list[Any]]:
    """Regions to learn from, as mmdet samples them.

    Returns:
        Boxes (B, R, 4), whether they are used (B, R), and for each image what mmdet knows of them.
    """
    assert regions.targets is not None
    found = []
    samples = instances(regions.targets, regions.sizes)
    for boxes, valid, sample in zip(regions.boxes, regions.valid, samples, strict=True):
        proposed = InstanceData(priors=boxes[valid])
        assigned = assigner.assign(proposed, sample.gt_instances, None)
        found.append(sampler.sample(assigned, proposed, sample.gt_instances))
    most = max(len(each.priors) for each in found)
    boxes = regions.boxes.new_zeros(len(found), most, 4)
    valid = regions.valid.new_zeros(len(found), most)
    for index, each in enumerate(found):
        boxes[index, : len(each.priors)] = each.priors
        valid[index, : len(each.priors)] = True
    return boxes, valid, found
