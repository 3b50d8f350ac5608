"""The exit of two-stage detectors: classes and boxes of regions, mmdet's losses of them."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from mmdet.models.task_modules.samplers import PseudoSampler
from mmengine.structures import InstanceData
from torch import Tensor, nn

from paretopath.elastic import Batched
from paretopath.tasks.detection.objects import NOTHING, Detections, Objects
from search_spaces.blocks.layers import linear
from search_spaces.detr.heads import criterion_of
from search_spaces.detr.matching import distance
from search_spaces.detr.objects import instances, metas
from search_spaces.detr.regions import Align, Regions, sampled
from search_spaces.detr.states import Boxes, Levels


class RegionHead(nn.Module):
    """Classes and boxes of regions: regions -> :class:`RegionDetections`.

    Args:
        roi: mmdet's ``StandardRoIHead``.
        rpn: mmdet's ``RPNHead``, for its losses.
    """

    def __init__(self, roi: Any, rpn: Any) -> None:
        super().__init__()
        self.align = Align(roi.bbox_roi_extractor)
        self.head = roi.bbox_head
        self.head.fc_cls, self.head.fc_reg = linear(self.head.fc_cls), linear(self.head.fc_reg)
        self.assigner, self.sampler = roi.bbox_assigner, roi.bbox_sampler
        self.settings = roi.test_cfg, roi.train_cfg
        self.criteria = nn.ModuleList([criterion_of(self.head), criterion_of(rpn)])

    def forward(self, regions: Regions) -> "RegionDetections":
        boxes, valid, samples = regions.boxes, regions.valid, None
        if self.training and regions.targets is not None:
            boxes, valid, samples = sampled(regions, self.assigner, self.sampler)
        logits, deltas = self.head(self.align(regions.maps, boxes))
        return RegionDetections(
            logits.unflatten(0, boxes.shape[:2]),
            deltas.unflatten(0, boxes.shape[:2]),
            boxes,
            valid,
            regions.logits,
            regions.deltas,
            regions.sizes,
            regions.shape,
            self,
            tuple(samples) if samples is not None else (),
        )


@dataclass(frozen=True)
class RegionDetections(Batched):
    """What the head gives; see :class:`~paretopath.tasks.detection.objects.RawDetections`.

    Attributes:
        logits: (B, R, classes + 1), the last one for none.
        deltas: (B, R, 4 * classes) by how much a region's box moves.
        boxes, valid: of the regions.
        anchor_logits, anchor_deltas: of all anchors, a map for each level.
        sizes, shape: of the images.
        head: whose these are.
        samples: in training, what mmdet knows of the regions that are learnt from.
    """

    logits: Tensor
    deltas: Tensor
    boxes: Tensor
    valid: Tensor
    anchor_logits: tuple[Tensor, ...]
    anchor_deltas: tuple[Tensor, ...]
    sizes: Tensor
    shape: Levels
    head: Any
    samples: Any

    def loss(self, targets: Objects) -> Tensor:
        """mmdet's losses of regions and of anchors."""
        head, rpn = self.head.criteria
        found = [sample.gt_instances for sample in instances(targets, self.sizes)]
        rows, samples = self._learnt(found)
        flat = [x.flatten(0, 1)[rows] for x in (self.logits, self.deltas, self.boxes)]
        logits, deltas, boxes = flat
        rois = torch.cat([boxes.new_zeros(len(boxes), 1), boxes], 1)
        of_regions = head.loss_and_target(logits, deltas, rois, samples, self.head.settings[1])
        known = [meta | {"pad_shape": self.shape.shapes[0]} for meta in metas(self.sizes)]
        objects = [InstanceData(bboxes=o.bboxes, labels=torch.zeros_like(o.labels)) for o in found]
        anchors = list(self.anchor_logits), list(self.anchor_deltas)
        losses = {**of_regions["loss_bbox"], **rpn.loss_by_feat(*anchors, objects, known)}
        parts = [part for name, part in losses.items() if "loss" in name]
        each = [torch.stack(part).sum() if isinstance(part, list) else part for part in parts]
        return torch.stack([part.sum() for part in each]).sum()

    def _learnt(self, found: list[Any]) -> tuple[Tensor, list[Any]]:
        """Which regions losses are of, (n,) among those of all images, and what mmdet knows."""
        places = torch.arange(self.valid.numel(), device=self.valid.device).view_as(self.valid)
        if self.samples:
            return places[self.valid], list(self.samples)
        rows, samples = [], []
        for index, objects in enumerate(found):
            used = places[index][self.valid[index]]
            proposed = InstanceData(priors=self.boxes[index][self.valid[index]])
            assigned = self.head.assigner.assign(proposed, objects, None)
            sample = PseudoSampler().sample(assigned, proposed, objects)
            rows.append(used[torch.cat([sample.pos_inds, sample.neg_inds])])
            samples.append(sample)
        return torch.cat(rows), samples

    def predict(self) -> Detections:
        """mmdet's post-processing: the surest boxes of each class that others don't suppress."""
        settings = self.head.settings[0]
        most = int(settings.max_per_img)
        count = len(self.sizes)
        boxes = self.boxes.new_zeros(count, most, 4)
        scores, labels = boxes.new_zeros(count, most), self.valid.new_full((count, most), 0).long()
        labels += NOTHING
        for index, meta in enumerate(metas(self.sizes)):
            used = self.valid[index]
            roi = F.pad(self.boxes[index][used], (1, 0))
            result = self.head.criteria[0]._predict_by_feat_single(
                roi, self.logits[index][used], self.deltas[index][used], meta, False, settings
            )
            n = len(result.scores)
            boxes[index, :n], scores[index, :n] = result.bboxes, result.scores
            labels[index, :n] = result.labels
        return Detections(boxes, scores, labels)

    def distill(self, teacher: "RegionDetections") -> Tensor:
        """See :func:`~search_spaces.detr.matching.distance`."""
        return distance(self._told(), teacher._told(), use_sigmoid=False)

    def _told(self) -> Boxes:
        """Each region's box as its likeliest class moves it, in shares of the image."""
        head = self.head.criteria[0]
        deltas = self.deltas.unflatten(-1, (-1, 4))
        if deltas.shape[2] > 1:
            likeliest = self.logits[..., :-1].argmax(-1)[..., None, None]
            deltas = deltas.gather(2, likeliest.expand(-1, -1, 1, 4))
        flat = head.bbox_coder.decode(self.boxes.flatten(0, 1), deltas[:, :, 0].flatten(0, 1))
        y, x = self.sizes[:, None].to(flat).split(1, dim=-1)
        corners = flat.view_as(self.boxes) / torch.cat([x, y, x, y], -1)
        low, high = corners.split(2, dim=-1)
        return Boxes(self.logits, torch.cat([(low + high) / 2, high - low], -1))
