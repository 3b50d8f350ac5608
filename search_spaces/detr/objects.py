"""Targets and sizes as mmdet's heads take them."""

from typing import Any

from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from paretopath.tasks.detection.objects import Objects


def metas(sizes: Tensor) -> list[dict[str, Any]]:
    """What is known of each image: its height and width without padding.

    Args:
        sizes: (B, 2).
    """
    return [{"img_shape": (int(height), int(width))} for height, width in sizes.tolist()]


def instances(targets: Objects, sizes: Tensor) -> list[Any]:
    """A ``DetDataSample`` for each image, crowds left out."""
    samples = []
    for index, meta in enumerate(metas(sizes)):
        sample = DetDataSample(metainfo=meta)
        boxes, labels = targets.of_image(index)
        sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
        samples.append(sample)
    return samples
