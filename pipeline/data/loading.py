"""From a recipe's data section to fixed splits of tensors."""

import numpy as np
import torch

from pipeline.data.sources import Source, read_source
from pipeline.data.splits import DataSplits, Examples, Indices, Normalisation, Split, stratified
from pipeline.data.transforms import ImageTransform, build_transform, fit, is_random
from pipeline.errors import DataError, nearest
from pipeline.recipe.data import Data

# Shares of `train` that are carved out where neither the recipe nor the source has a split. A quarter for test keeps
# the standard error of an accuracy near one point at a few hundred images.
DEFAULT_SHARES = {"validation": 0.15, "test": 0.25}

Part = tuple[Examples, Indices]


def load_data(config: Data, *, input_shape: tuple[int, int, int]) -> DataSplits:
    """Opens a data set and fixes its splits: the same images in the same order for the same recipe, everywhere.

    A split that is carved out of ``train`` is stratified by class, test before validation, so that the test images don't
    depend on the share of validation.

    Args:
        config: the recipe's section.
        input_shape: (C, Y, X) of the images that the model takes.

    Raises:
        DataError: the source can't be read, lacks a column or a split, or its images end up in another shape.
    """
    source = read_source(config, channels=input_shape[0])
    parts = _choose_parts(config, source)
    normalise = _normalisation(config, input_shape[0])
    evaluation, training, random = _transforms(config, (input_shape[1], input_shape[2]))

    def split(name: str, transform: ImageTransform, *, random: bool = False) -> Split:
        examples, indices = parts[name]
        pixels = np.prod(input_shape, dtype=float) * len(indices)
        # kept as decoded: a byte a value, or four for a source of more than 8 bits; assume the worse
        keep = not random and pixels * 4 <= config.cache_mb * 2**20
        made = Split(examples, indices, transform=transform, normalise=normalise, keep=keep)
        _check_shape(made, name, input_shape)
        return made

    calibration = split("train", evaluation)
    is_same = training is evaluation
    return DataSplits(
        train=calibration if is_same else split("train", training, random=random),
        calibration=calibration,
        validation=split("validation", evaluation),
        test=split("test", evaluation),
        class_names=source.class_names,
        batch_size=config.batch_size,
        eval_batch_size=config.eval_batch_size,
        workers=config.workers,
    )


def _choose_parts(config: Data, source: Source) -> dict[str, Part]:
    train = _own_split(source, config.splits.train, "train")
    parts: dict[str, Part] = {}
    shares: dict[str, float] = {}
    for name in ("test", "validation"):
        wanted = getattr(config.splits, name)
        if wanted is None:
            wanted = name if name in source.splits else DEFAULT_SHARES[name]
        if isinstance(wanted, str):
            examples = _own_split(source, wanted, name)
            parts[name] = (examples, np.arange(len(examples.labels)))
        else:
            shares[name] = wanted
    sizes = [round(share * len(train.labels)) for share in shares.values()]
    carved = stratified(train.labels, sizes, seed=config.seed)
    for name, indices in zip([*shares, "train"], carved, strict=True):
        parts[name] = (train, indices)
    for name, (_, indices) in parts.items():
        if len(indices) == 0:
            raise DataError(
                f"every split must have images, but {name} has none of {len(train.labels)}"
            )
    return parts


def _own_split(source: Source, wanted: str, field: str) -> Examples:
    if wanted not in source.splits:
        raise DataError(
            f"data.splits.{field} must be a split of the source, but got {wanted!r}; "
            f"{nearest(wanted, source.splits)}"
        )
    return source.splits[wanted]


def _normalisation(config: Data, channels: int) -> Normalisation:
    for name, values in (("mean", config.mean), ("std", config.std)):
        if len(values) not in (1, channels):
            raise DataError(
                f"data.{name} must have one number or one for each of {channels} channels, but got {len(values)}"
            )
    return Normalisation(
        torch.tensor(config.mean).reshape(-1, 1, 1), torch.tensor(config.std).reshape(-1, 1, 1)
    )


def _transforms(config: Data, size: tuple[int, int]) -> tuple[ImageTransform, ImageTransform, bool]:
    """What is done for evaluation and for training, the same object if nothing differs, and whether it is random."""
    lists = config.transforms
    evaluation = fit(size) if lists.evaluation is None else build_transform(lists.evaluation, size)
    if lists.train is None or lists.train == lists.evaluation:
        return evaluation, evaluation, False
    return evaluation, build_transform(lists.train, size), is_random(lists.train)


def _check_shape(split: Split, name: str, input_shape: tuple[int, int, int]) -> None:
    image = split.first()
    if tuple(image.shape) != input_shape:
        raise DataError(
            f"images of {name} must end up as {input_shape} (C, Y, X), but data.transforms makes them "
            f"{tuple(image.shape)}: end with center_crop, or with resize to both sizes"
        )
