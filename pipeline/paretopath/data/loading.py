"""From a recipe's data section to fixed splits of tensors."""

from collections.abc import Sequence

import numpy as np
import torch

from paretopath.data.batched import BatchTransform, build_batch_transform, is_batchable
from paretopath.data.brightness import check_brightness
from paretopath.data.labels import ReadTargets, class_labels
from paretopath.data.parts import check_classes, choose_parts
from paretopath.data.saying import listed
from paretopath.data.sources import read_source
from paretopath.data.splits import DataSplits, Examples, Indices, Normalisation, Split
from paretopath.data.transforms import ImageTransform, build_transform, fit, is_random
from paretopath.errors import DataError
from paretopath.recipe import Data
from paretopath.recipe.transforms import TransformSpec


def load_data(
    config: Data,
    *,
    input_shape: tuple[int, int, int],
    num_classes: int | None = None,
    read_targets: ReadTargets = class_labels,
) -> DataSplits:
    """Opens a data set and fixes its splits: for one recipe the same images in the same order.

    Args:
        config: the recipe's section.
        input_shape: (C, Y, X) of the images that the model takes.
        num_classes: that the model tells apart; not checked if None.
        read_targets: makes targets of the target column; one class an image by default.

    Raises:
        DataError: the source can't be read, lacks a column or a split, holds more classes than the
            model knows, or its images end up in another shape.
    """
    source = read_source(config, channels=input_shape[0], read_targets=read_targets)
    if num_classes is not None and len(source.class_names) > num_classes:
        raise DataError(
            f"the model must know every class, but it tells {num_classes} apart and "
            f"{config.source!r} has {len(source.class_names)}: {listed(list(source.class_names))}"
        )
    parts = choose_parts(config, source.splits, _classes)
    if read_targets is class_labels:
        chosen = {name: _classes(examples)[rows] for name, (examples, rows) in parts.items()}
        check_classes(chosen, source.class_names, num_classes)
    check_brightness(parts["train"][0].image, parts["train"][1])
    normalise = normalisation(config, input_shape[0])
    size = (input_shape[1], input_shape[2])
    wanted = config.transforms
    evaluation = (
        fit(size) if wanted.evaluation is None else build_transform(wanted.evaluation, size)
    )
    keep_bytes = config.cache_mb * 2**20

    def split(
        name: str,
        transform: ImageTransform,
        *,
        augment: BatchTransform | None = None,
        keep_bytes: float = keep_bytes,
    ) -> Split:
        return Split(
            *parts[name],
            shape=input_shape,
            transform=transform,
            normalise=normalise,
            augment=augment,
            keep_bytes=keep_bytes,
            threads=max(1, config.workers),
        )

    calibration = train = split("train", evaluation)
    if wanted.train is not None and wanted.train != wanted.evaluation:
        fixed, random = _divide(wanted.train)
        if all(is_batchable(spec) for spec in random):
            augment = build_batch_transform(random) if random else None
            train = split("train", build_transform(fixed, size), augment=augment)
        else:
            train = split("train", build_transform(wanted.train, size), keep_bytes=0.0)
    return DataSplits(
        train=train,
        calibration=calibration,
        validation=split("validation", evaluation),
        test=split("test", evaluation),
        class_names=source.class_names,
        batch_size=config.batch_size,
        eval_batch_size=config.eval_batch_size,
        workers=config.workers,
        repeats=not any(is_random(spec) for spec in wanted.train or ()),
    )


def _classes(examples: Examples) -> Indices:
    """(n,) the class of each example; one for all where targets are no classes."""
    targets = examples.targets
    if targets.ndim == 1 and not targets.is_floating_point():
        return targets.numpy().astype(np.int64)
    return np.zeros(len(targets), dtype=np.int64)


def _divide(specs: Sequence[TransformSpec]) -> tuple[list[TransformSpec], list[TransformSpec]]:
    """What can be done once, up to the first random transform, and the rest."""
    first = next((i for i, spec in enumerate(specs) if is_random(spec)), len(specs))
    return list(specs[:first]), list(specs[first:])


def normalisation(config: Data, channels: int) -> Normalisation:
    """The normalisation of a recipe; DataError if it is for another number of channels."""
    for name, values in (("mean", config.mean), ("std", config.std)):
        if len(values) not in (1, channels):
            raise DataError(
                f"data.{name} must have one number, or one for each of {channels} channels, "
                f"but got {len(values)}"
            )
    return Normalisation(
        torch.tensor(config.mean).reshape(-1, 1, 1), torch.tensor(config.std).reshape(-1, 1, 1)
    )
