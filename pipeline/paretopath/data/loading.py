"""From a recipe's data section to fixed splits of tensors."""

from collections.abc import Sequence

import numpy as np
import torch

from paretopath.data.batched import BatchTransform, build_batch_transform, is_batchable
from paretopath.data.sources import Source, read_source
from paretopath.data.splits import DataSplits, Examples, Indices, Normalisation, Split, stratified
from paretopath.data.transforms import ImageTransform, build_transform, fit, is_random
from paretopath.errors import DataError, nearest
from paretopath.recipe import Data
from paretopath.recipe.transforms import TransformSpec

# Shares of `train` that are carved out where neither the recipe nor the source has a split. More
# for test, because the figures that are reported rest on it.
DEFAULT_SHARES = {"test": 0.25, "validation": 0.15}

Part = tuple[Examples, Indices]


def load_data(
    config: Data, *, input_shape: tuple[int, int, int], num_classes: int | None = None
) -> DataSplits:
    """Opens a data set and fixes its splits: for one recipe the same images in the same order.

    Splits that are carved out of ``train`` are stratified by class; test comes before validation,
    so that the test images don't depend on the share of validation.

    Args:
        config: the recipe's section.
        input_shape: (C, Y, X) of the images that the model takes.
        num_classes: that the model tells apart; not checked if None.

    Raises:
        DataError: the source can't be read, lacks a column or a split, holds more classes than the
            model knows, or its images end up in another shape.
    """
    source = read_source(config, channels=input_shape[0])
    if num_classes is not None and len(source.class_names) > num_classes:
        raise DataError(
            f"the model must know every class, but it tells {num_classes} apart and "
            f"{config.source!r} has {len(source.class_names)}"
        )
    parts = _choose_parts(config, source)
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
    )


def _choose_parts(config: Data, source: Source) -> dict[str, Part]:
    """The images of train, validation and test: the source's own splits, or carved out of train."""
    train = _own_split(source, config.splits.train, "train")
    parts: dict[str, Part] = {}
    carved: dict[str, int] = {}
    for name, default in DEFAULT_SHARES.items():
        wanted = getattr(config.splits, name)
        if wanted is None:
            wanted = name if name in source.splits else default
        if isinstance(wanted, str):
            examples = _own_split(source, wanted, name)
            parts[name] = (examples, np.arange(len(examples.labels)))
        else:
            carved[name] = round(wanted * len(train.labels))
    pieces = stratified(train.labels, list(carved.values()), seed=config.seed)
    for name, indices in zip([*carved, "train"], pieces, strict=True):
        parts[name] = (train, indices)
    for name, (_, indices) in parts.items():
        if len(indices) == 0:
            raise DataError(
                f"every split must have images, but {name} gets none of the {len(train.labels)} "
                f"in {config.splits.train!r}: see data.splits"
            )
    return parts


def _divide(specs: Sequence[TransformSpec]) -> tuple[list[TransformSpec], list[TransformSpec]]:
    """What can be done once, up to the first random transform, and the rest."""
    first = next((i for i, spec in enumerate(specs) if is_random(spec)), len(specs))
    return list(specs[:first]), list(specs[first:])


def _own_split(source: Source, wanted: str, field: str) -> Examples:
    if wanted not in source.splits:
        raise DataError(
            f"data.splits.{field} must be a split of the source, but got {wanted!r}; "
            f"{nearest(wanted, source.splits)}"
        )
    return source.splits[wanted]


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
