"""Exits: what mmdet's heads make of queries, their losses and their post-processing."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.models.dense_heads import DINOHead
from torch import Tensor, nn

from paretopath.elastic import Batched
from paretopath.tasks.detection.objects import Detections, Objects
from search_spaces.detr.decoding import moved_from
from search_spaces.detr.matching import distance
from search_spaces.detr.objects import instances, metas
from search_spaces.detr.states import Boxes, Denoising, Proposed, Queries


class Head(nn.Module):
    """Classes and boxes of queries: queries -> :class:`DetrDetections`.

    Args:
        head: mmdet's, for its losses, its assigner and its post-processing.
        norm: before its branches.
        logits, boxes: its branches.
        uses_references: whether boxes are told from where the queries looked.
        eps: how near to 0 and 1 references are clamped.
        layers: of the whole decoder: proposals are learned once, not with each layer's exit.
    """

    def __init__(
        self,
        head: Any,
        norm: nn.Module,
        logits: nn.Module,
        boxes: nn.Module,
        *,
        uses_references: bool,
        eps: float,
        layers: int,
    ) -> None:
        super().__init__()
        self.norm, self.logits, self.boxes = norm, logits, boxes
        self.uses_references = uses_references
        self.eps = eps
        self.layers = layers
        self.criterion = criterion_of(head)

    def forward(self, queries: Queries) -> "DetrDetections":
        x = self.norm(queries.x)
        boxes = self.boxes(x)
        if self.uses_references:
            assert queries.references is not None
            boxes = moved_from(queries.references, boxes, self.eps)
        else:
            boxes = boxes.sigmoid()
        found = Boxes(self.logits(x), boxes)
        return DetrDetections(
            found,
            queries.tokens.sizes,
            queries.proposals,
            queries.denoising,
            self.criterion,
            self.layers,
        )


def criterion_of(head: Any) -> Any:
    """What a head of mmdet's knows besides its branches: assigner, losses, settings."""
    criterion = copy.copy(head)
    losses = {name: part for name, part in head._modules.items() if name.startswith("loss_")}
    criterion._modules = losses
    return criterion


@dataclass(frozen=True)
class DetrDetections(Batched):
    """What an exit gives; see :class:`~paretopath.tasks.detection.objects.RawDetections`.

    Attributes:
        found: of all queries, the denoising ones first.
        sizes: (B, 2) of the images.
        proposals: what was found before any query; in training alone.
        denoising: the first queries; None where there are none.
        criterion: mmdet's head without its branches.
        layers: of the whole decoder.
    """

    found: Boxes
    sizes: Tensor
    proposals: Proposed | None
    denoising: Denoising | None
    criterion: Any
    layers: int

    @property
    def matched(self) -> Boxes:
        """Without the denoising queries."""
        first = self.denoising.queries if self.denoising is not None else 0
        return Boxes(self.found.logits[:, first:], self.found.boxes[:, first:])

    def loss(self, targets: Objects) -> Tensor:
        """mmdet's losses of the exit's layer, of its denoising queries, and a layer's share of
        those of proposals.
        """
        samples = instances(targets, self.sizes)
        objects = [sample.gt_instances for sample in samples]
        known = metas(self.sizes)
        matched = self.matched
        single = self.criterion.loss_by_feat_single
        total: Tensor = sum(single(matched.logits, matched.boxes, objects, known))
        if self.denoising is not None:
            noisy, first = self.found, self.denoising.queries
            logits, boxes = noisy.logits[:, :first], noisy.boxes[:, :first]
            of_noise = self.criterion._loss_dn_single
            total = total + sum(of_noise(logits, boxes, objects, known, self.denoising.meta))
        if self.proposals is not None:
            lost = self.proposals.lost(lambda found: self._of_proposals(found, objects, known))
            total = total + lost / self.layers
        return total.sum()  # mmdet's of no denoising queries has a dimension

    def _of_proposals(self, found: Boxes, objects: list[Any], known: list[Any]) -> Tensor:
        if not isinstance(self.criterion, DINOHead):  # they tell objects from none
            objects = copy.deepcopy(objects)
            for one in objects:
                one.labels = torch.zeros_like(one.labels)
        lost: Tensor = sum(
            self.criterion.loss_by_feat_single(found.logits, found.boxes, objects, known)
        )
        return lost

    def predict(self) -> Detections:
        """The surest of them, as mmdet's head chooses; as many in each image."""
        matched = self.matched
        post = copy.copy(self.criterion)
        settings = dict(post.test_cfg or {})
        choices = matched.logits[0].numel() if post.loss_cls.use_sigmoid else len(matched.logits[0])
        most = min(settings.get("max_per_img", matched.logits.shape[1]), choices)
        post.test_cfg = settings | {"max_per_img": most}
        results = [
            post._predict_by_feat_single(logits, boxes, meta, rescale=False)
            for logits, boxes, meta in zip(
                matched.logits, matched.boxes.clone(), metas(self.sizes), strict=True
            )
        ]
        return Detections(
            torch.stack([result.bboxes for result in results]),
            torch.stack([result.scores for result in results]),
            torch.stack([result.labels for result in results]),
        )

    def distill(self, teacher: "DetrDetections") -> Tensor:
        """See :func:`~search_spaces.detr.matching.distance`."""
        use_sigmoid = self.criterion.loss_cls.use_sigmoid
        return distance(self.matched, teacher.matched, use_sigmoid=use_sigmoid)
