"""Which detections are right: COCO's greedy matching, all images and overlaps at once.

As in COCO's own evaluation (Lin et al., "Microsoft COCO", arXiv 1405.0312; pycocotools,
``COCOeval.evaluateImg``): of each image and class the surest detections choose first, each the free
object of its class that it overlaps most, and at least by the threshold. Objects that don't count
(crowds, those of another size) are taken only where no other fits, crowds by any number; what takes
one counts neither as right nor as wrong, nor does what takes nothing and is of another size itself.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from paretopath.tasks.detection.objects import NOTHING, Detections, Objects

OVERLAPS = tuple(np.linspace(0.5, 0.95, 10).tolist())
"""Intersections over union from which a detection is right; mAP is the mean over them."""

SIZES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2)} | {
    "large": (96.0**2, 1e10)
}
"""Least and largest area, in pixels of the original image, by COCO's names."""

MOST_DETECTIONS = 100
"""Of one class in one image; less sure ones are left out."""


@dataclass(frozen=True)
class Matches:
    """What the detections of some images came to.

    Attributes:
        image: (D,) int64 number of the image of each detection.
        label: (D,) int64 its class.
        score: (D,) float32.
        right: (overlaps, D) bool.
        ignored: (overlaps, D) bool: counts neither as right nor as wrong.
        objects: (images, classes) int64: objects that count, classes up to the last that occurs.
    """

    image: Tensor
    label: Tensor
    score: Tensor
    right: Tensor
    ignored: Tensor
    objects: Tensor


@torch.no_grad()
def match(found: Detections, targets: Objects, *, size: str = "all") -> Matches:
    """Matches the detections of a batch, boxes of both in the model's pixels.

    Args:
        found: (B, K).
        targets: (B, N), on the same device.
        size: one of :data:`SIZES`: of the objects that count.
    """
    order = found.scores.masked_fill(found.labels == NOTHING, -1).argsort(
        dim=1, descending=True, stable=True
    )
    boxes = found.boxes.gather(1, order[..., None].expand(-1, -1, 4)).double()
    labels, scores = found.labels.gather(1, order), found.scores.gather(1, order)
    kept = (labels != NOTHING) & (_rank_in_class(labels) < MOST_DETECTIONS)
    least, largest = SIZES[size]
    exists = targets.labels != NOTHING
    other = targets.crowd | (targets.areas < least) | (targets.areas > largest)
    overlap = _overlaps(boxes, targets)
    overlap = overlap.masked_fill(labels[..., None] != targets.labels[:, None], -1)
    taken = _take(overlap.masked_fill(~exists[:, None], -1), kept, other, targets.crowd)
    place = taken.clamp(min=0)  # (B, overlaps, K)
    takes_other = other[:, None].expand(-1, len(OVERLAPS), -1).gather(2, place)
    area = _areas(boxes) / targets.scale.double().prod(1, keepdim=True)
    is_other_size = ((area < least) | (area > largest))[:, None]
    ignored = torch.where(taken >= 0, takes_other, is_other_size)
    images = torch.arange(len(labels), device=labels.device)[:, None].expand_as(labels)
    classes = int(targets.labels.max()) + 1 if exists.any() else 1
    objects = torch.zeros(len(labels), classes, dtype=torch.int64, device=labels.device)
    objects.scatter_add_(1, targets.labels.clamp(min=0), (exists & ~other).long())
    return Matches(
        images[kept],
        labels[kept],
        scores[kept],
        (taken >= 0).movedim(1, 0)[:, kept],
        ignored.movedim(1, 0)[:, kept],
        objects,
    )


def _take(overlap: Tensor, kept: Tensor, other: Tensor, crowd: Tensor) -> Tensor:
    """(B, overlaps, K) which object each detection takes, -1 for none.

    Args:
        overlap: (B, K, N) with the objects of its class, -1 with all others; surest first.
        kept: (B, K) which detections take part.
        other: (B, N) objects that don't count.
        crowd: (B, N) those of them that any number may take.
    """
    batch, places, objects = overlap.shape
    taken = torch.full((batch, len(OVERLAPS), places), -1, device=overlap.device)
    if objects == 0:
        return taken
    # the published code asks for min(threshold, 1 - 1e-10)
    least = torch.tensor(OVERLAPS, dtype=torch.float64, device=overlap.device)[:, None]
    free = torch.ones(batch, len(OVERLAPS), objects, dtype=torch.bool, device=overlap.device)
    # an object that counts goes before any other, whatever their overlaps, which are at most 1
    rank = torch.where(other[:, None], overlap, overlap + 2)
    number = torch.arange(objects, device=overlap.device)
    for place in range(places):
        fits = (overlap[:, None, place] >= least) & free & kept[:, place, None, None]
        best, chosen = torch.where(fits, rank[:, None, place], -1.0).max(2)
        chosen = torch.where(best >= 0, chosen, -1)
        taken[:, :, place] = chosen
        free &= (chosen[..., None] != number) | crowd[:, None]
    return taken


def _overlaps(boxes: Tensor, targets: Objects) -> Tensor:
    """(B, K, N) intersection over union; over the detection's own area with a crowd."""
    truth = targets.boxes.double()
    corner = torch.minimum(boxes[:, :, None, 2:], truth[:, None, :, 2:])
    sides = (corner - torch.maximum(boxes[:, :, None, :2], truth[:, None, :, :2])).clamp(min=0)
    both, own = sides.prod(-1), _areas(boxes)[..., None]
    union = torch.where(targets.crowd[:, None], own, own + _areas(truth)[:, None] - both)
    return both / union.clamp(min=1e-12)


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).prod(-1)


def _rank_in_class(labels: Tensor) -> Tensor:
    """(B, K) how many detections of the same class stand before each."""
    if labels.shape[1] <= MOST_DETECTIONS:
        return torch.zeros_like(labels)
    same = labels[:, :, None] == labels[:, None]
    return same.tril(-1).sum(2)
