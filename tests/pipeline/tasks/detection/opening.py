"""Opens data with objects, as a recipe would."""

from typing import Any

import numpy as np

from paretopath.data import DataSplits
from paretopath.recipe import Data
from paretopath.tasks.detection.objects import Objects, PaddedImages
from paretopath.tasks.detection.section import DetectionSection
from paretopath.tasks.registry import open_data


def opened(
    data: Data, *, size: tuple[int, int] = (60, 80), classes: int = 3, **task: Any
) -> DataSplits:
    section = DetectionSection.model_validate(task)
    return open_data(data, section, input_shape=(3, *size), num_classes=classes)


def first_of(splits: DataSplits, number: int = 0) -> tuple[PaddedImages, Objects]:
    """The example of a number, whichever split it is in."""
    for name in ("train", "validation", "test"):
        part: Any = splits.split(name)  # type: ignore[arg-type]
        found = np.flatnonzero(part.canvases.indices == number)
        if len(found):
            batch: tuple[PaddedImages, Objects] = part.__getitems__([int(found[0])])
            return batch
    raise AssertionError(number)
