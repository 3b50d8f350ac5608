"""From a recipe's data section to fixed splits of images and objects."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from paretopath.data.loading import normalisation
from paretopath.data.parts import choose_parts
from paretopath.data.scenes import SCENES_WITH_BOXES, scenes
from paretopath.data.splits import DataSplits, Indices
from paretopath.data.transforms import build_transform, is_random, require_joint
from paretopath.errors import DataError
from paretopath.recipe import Data
from paretopath.recipe.data import COCO, DIGIT_SCENES
from paretopath.recipe.transforms import CenterCrop, TransformSpec
from paretopath.tasks.detection.annotations import BoxFormat
from paretopath.tasks.detection.coco import read_coco
from paretopath.tasks.detection.columns import read_columns
from paretopath.tasks.detection.examples import ObjectExamples, ScenesWithObjects
from paretopath.tasks.detection.occurrence import check_objects
from paretopath.tasks.detection.padding import Canvases, JointTransform, ObjectSplit


def load_objects(
    config: Data,
    *,
    input_shape: tuple[int, int, int],
    num_classes: int,
    box_format: BoxFormat = "xywh",
) -> DataSplits:
    """Opens a data set for detection and fixes its splits.

    Images keep their proportions: they fill the model's input in height or width, and the rest is
    padding, so that a path costs what its table says whatever the images' sizes.

    Args:
        config: the recipe's section.
        input_shape: (C, Y, X) of the model's input.
        num_classes: that the model tells apart.
        box_format: how boxes are stored in a column.

    Raises:
        DataError: the source can't be read, lacks a column or a split, or its objects are not what
            they should be.
    """
    sources, names = _read(config, input_shape[0], box_format)
    if len(names) > num_classes:
        raise DataError(
            f"the model must know every class, but it tells {num_classes} apart and "
            f"{config.source!r} has {len(names)}"
        )
    parts = choose_parts(config, sources, _one_class)
    if config.source != DIGIT_SCENES:
        check_objects(parts, names, threads=max(1, config.workers))
    normalise = normalisation(config, input_shape[0])
    wanted = config.transforms
    if any(isinstance(spec, CenterCrop) for spec in wanted.evaluation or ()):
        raise DataError(
            "center_crop would cut objects away that are to be found: leave it out of "
            "data.transforms.evaluation; images are padded"
        )

    def read(name: str, specs: Sequence[TransformSpec] | None) -> Canvases:
        is_fixed = not any(is_random(spec) for spec in specs or ())
        return Canvases(
            *parts[name],
            size=(input_shape[1], input_shape[2]),
            transform=_joint(specs, (input_shape[1], input_shape[2])),
            keep_bytes=config.cache_mb * 2**20 if is_fixed else 0.0,
            threads=max(1, config.workers),
        )

    calibration = read("train", wanted.evaluation)
    train = calibration if wanted.train is None else read("train", wanted.train)
    return DataSplits(
        train=ObjectSplit(train, normalise, teaches=True),
        calibration=ObjectSplit(calibration, normalise),
        validation=ObjectSplit(read("validation", wanted.evaluation), normalise),
        test=ObjectSplit(read("test", wanted.evaluation), normalise),
        class_names=names,
        batch_size=config.batch_size,
        eval_batch_size=config.eval_batch_size,
        workers=config.workers,
        repeats=not any(is_random(spec) for spec in wanted.train or ()),
    )


def _read(
    config: Data, channels: int, box_format: BoxFormat
) -> tuple[Mapping[str, ObjectExamples], tuple[str, ...]]:
    if config.source == DIGIT_SCENES:
        splits = scenes(channels, SCENES_WITH_BOXES)
        found = {name: ScenesWithObjects(part) for name, part in splits.items()}
        return found, tuple(str(digit) for digit in range(10))
    if config.source == COCO:
        return read_coco(config, channels)
    return read_columns(config, channels, box_format)


def _one_class(examples: ObjectExamples) -> Indices:
    """Images with objects are carved out without regard to what is in them."""
    return np.zeros(len(examples), dtype=np.int64)


def _joint(specs: Sequence[TransformSpec] | None, size: tuple[int, int]) -> JointTransform | None:
    """One function that transforms an image and its boxes alike."""
    if not specs:
        return None
    require_joint(specs, "boxes")
    both: Any = build_transform(specs, size)
    return lambda image, boxes: both(image, boxes)
