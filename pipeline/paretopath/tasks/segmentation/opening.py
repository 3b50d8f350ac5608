"""From a recipe's data section to fixed splits of images and masks."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from paretopath.data.brightness import check_brightness
from paretopath.data.images import to_tensor
from paretopath.data.loading import normalisation
from paretopath.data.parts import choose_parts
from paretopath.data.pictures import PictureColumn
from paretopath.data.saying import say
from paretopath.data.scenes import CLASSES, scenes
from paretopath.data.sources import files_folder, open_tables
from paretopath.data.splits import DataSplits, Indices
from paretopath.data.transforms import build_transform, fit, is_random, require_joint
from paretopath.errors import DataError
from paretopath.recipe import Data
from paretopath.recipe.data import DIGIT_SCENES
from paretopath.recipe.transforms import TransformSpec
from paretopath.tasks.segmentation.labels import Labels
from paretopath.tasks.segmentation.masks import MaskExamples, MaskSplit
from paretopath.tasks.segmentation.occurrence import check_occurrence
from paretopath.tasks.segmentation.windows import SlidingWindow


def load_masks(
    config: Data,
    labels: Labels,
    *,
    input_shape: tuple[int, int, int],
    window: SlidingWindow | None = None,
) -> DataSplits:
    """Opens a data set for segmentation and fixes its splits.

    Args:
        config: the recipe's section; ``target`` is the column of the masks.
        labels: how classes are stored in the masks.
        input_shape: (C, Y, X) of the images that the model takes.
        window: how larger images are cut for scoring; None to bring all to ``input_shape``.

    Raises:
        DataError: the source can't be read, lacks a column or a split, holds a class that the model
            doesn't know, or its images end up in another shape.
    """
    sources, names = _read(config, input_shape[0], labels.num_classes)
    parts = choose_parts(config, sources, _one_class)
    check_brightness(lambda index: parts["train"][0].example(index)[0], parts["train"][1])
    if config.source != DIGIT_SCENES:  # whose masks hold every class
        check_occurrence(parts, labels, threads=max(1, config.workers))
    if window is not None and window.size != input_shape[1:]:
        raise DataError(
            f"task.window must be the space's input {input_shape[1:]} (Y, X), but got {window.size}"
        )
    normalise = normalisation(config, input_shape[0])
    wanted = config.transforms

    def split(
        name: str, specs: Sequence[TransformSpec] | None, *, window: SlidingWindow | None = window
    ) -> MaskSplit:
        if specs is None and window is not None:
            specs = ()
        is_fixed = not any(is_random(spec) for spec in specs or ())
        return MaskSplit(
            *parts[name],
            shape=input_shape,
            transform=_joint(specs, (input_shape[1], input_shape[2])),
            normalise=normalise,
            labels=labels,
            window=window,
            keep_bytes=config.cache_mb * 2**20 if is_fixed else 0.0,
            threads=max(1, config.workers),
        )

    whole = split("train", wanted.evaluation, window=None)
    return DataSplits(
        train=whole if wanted.train is None else split("train", wanted.train, window=None),
        calibration=split("train", wanted.evaluation),
        validation=split("validation", wanted.evaluation),
        test=split("test", wanted.evaluation),
        class_names=names,
        batch_size=config.batch_size,
        eval_batch_size=config.eval_batch_size,
        workers=config.workers,
        repeats=not any(is_random(spec) for spec in wanted.train or ()),
    )


class _TableMasks:
    """Rows of a `datasets.Dataset` with an image and a mask."""

    def __init__(self, table: Any, config: Data, channels: int, *, split: str) -> None:
        folder = files_folder(config)
        self.images = PictureColumn(table, config.image, folder=folder, split=split)
        self.masks = PictureColumn(table, config.target, folder=folder, split=split)
        self.convert = partial(to_tensor, channels=channels, max_value=config.max_value)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def files(self) -> Sequence[str]:
        return self.images.files

    def example(self, index: int) -> tuple[Tensor, Tensor]:
        image, mask = self.images.read(index, self.convert), self.mask(index)
        if mask.shape != image.shape[1:]:
            raise DataError(
                f"a mask must have its image's size, but {self.describe(index)} is "
                f"{tuple(mask.shape)} and its image {tuple(image.shape[1:])} (Y, X)"
            )
        return image, mask

    def mask(self, index: int) -> Tensor:
        return self.masks.read(index, _mask)

    def describe(self, index: int) -> str:
        return self.masks.describe(index)


def _one_class(examples: MaskExamples) -> Indices:
    """Images with masks are carved out without regard to what is in them."""
    return np.zeros(len(examples), dtype=np.int64)


def _mask(value: Any) -> Tensor:
    if getattr(value, "format", None) == "JPEG":
        say("masks are JPEGs, which keep values only nearly: some pixels may have another class")
    array = np.array(value)
    if array.ndim != 2 or array.dtype.kind not in "iub":
        raise DataError(
            f"a mask must hold one whole number a pixel, (Y, X), but got {array.dtype} of shape "
            f"{array.shape}"
        )
    return torch.from_numpy(array.astype(np.int32))


def _read(
    config: Data, channels: int, num_classes: int
) -> tuple[Mapping[str, MaskExamples], tuple[str, ...]]:
    if config.source == DIGIT_SCENES:
        if num_classes < len(CLASSES):
            raise DataError(
                f"the model must know every class, but it tells {num_classes} apart and "
                f"{config.source!r} has {len(CLASSES)}"
            )
        return scenes(channels), CLASSES
    tables = open_tables(config)
    names = tuple(str(number) for number in range(num_classes))
    return {
        name: _TableMasks(table, config, channels, split=name) for name, table in tables.items()
    }, names


def _joint(
    specs: Sequence[TransformSpec] | None, size: tuple[int, int]
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """One function that transforms an image and its mask alike."""
    if specs is None:
        one = fit(size)
        return lambda image, mask: (one(image), one(mask))
    require_joint(specs, "masks")
    if not specs:
        return lambda image, mask: (image, mask)
    both: Any = build_transform(specs, size)
    return lambda image, mask: both(image, mask)
