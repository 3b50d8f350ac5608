"""Scenes of digits with boxes."""

import numpy as np

from paretopath.data.scenes import SCENES_WITH_BOXES, scenes
from paretopath.recipe import Data
from paretopath.tasks.detection.objects import NOTHING
from tests.pipeline.tasks.detection.opening import opened


def test_scenes_have_boxes_around_their_digits() -> None:
    parts = scenes(3, SCENES_WITH_BOXES)
    assert {name: len(part) for name, part in parts.items()} == SCENES_WITH_BOXES
    for number in range(10):
        scene = parts["validation"].scene(number)
        x0, y0, x1, y1 = scene.boxes[-1]  # nothing lies over the last one
        ys, xs = np.nonzero(scene.mask[y0:y1, x0:x1].numpy() == scene.digits[-1] + 1)
        assert (ys.min(), ys.max() + 1, xs.min(), xs.max() + 1) == (0, y1 - y0, 0, x1 - x0)


def test_scenes_for_detection_open_without_files() -> None:
    data = Data.model_validate({"source": "digit_scenes", "cache_mb": 0.0})
    splits = opened(data, size=(64, 64), classes=10)
    images, objects = splits.validation.__getitems__([0, 1, 2])
    assert images.pixels.shape == (3, 3, 64, 64)
    assert ((objects.labels != NOTHING).sum(1) >= 3).all()
    assert splits.class_names == tuple("0123456789")
