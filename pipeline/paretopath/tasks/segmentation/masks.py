"""Images with a class for every pixel: splits whose images and masks are transformed in step."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from paretopath.data.images import to_tensor
from paretopath.data.loading import DEFAULT_SHARES, normalisation
from paretopath.data.scenes import CLASSES, scenes
from paretopath.data.sources import PictureColumn, files_folder, open_tables
from paretopath.data.splits import Batch, DataSplits, Indices, Normalisation, stratified
from paretopath.data.transforms import build_transform, fit, is_random
from paretopath.errors import DataError, nearest
from paretopath.recipe import Data
from paretopath.recipe.data import DIGIT_SCENES
from paretopath.recipe.transforms import RandAugment, TransformSpec, TrivialAugmentWide
from paretopath.tasks.segmentation.windows import SlidingWindow

# torchvision v2 has no form of these for masks
IMAGES_ONLY = (TrivialAugmentWide, RandAugment)


class MaskExamples(Protocol):
    """Images and masks as their source has them."""

    def __len__(self) -> int: ...

    def example(self, index: int) -> tuple[Tensor, Tensor]:
        """An image (C, Y, X), uint8 or float32 in [0, 1], and its mask (Y, X), uint8 or int32."""
        ...


@dataclass(frozen=True)
class Labels:
    """How classes are stored in masks.

    Inside, a class c is c + 1 and an ignored pixel 0, so that what a transform pads is ignored.

    Attributes:
        num_classes: that the model tells apart.
        ignore_index: the class of ignored pixels, in the masks as stored and as given out.
        skip_zero: whether the stored class 0 is ignored and the others count from 1.
    """

    num_classes: int
    ignore_index: int
    skip_zero: bool = False

    def encode(self, mask: Tensor) -> Tensor:
        """(Y, X) as stored -> (Y, X) int32, from 0 for an ignored pixel to ``num_classes``.

        Raises:
            DataError: a class that the model doesn't know.
        """
        stored = mask.int()
        shifted = stored if self.skip_zero else stored + 1
        encoded = torch.where(stored == self.ignore_index, 0, shifted)
        wrong = (encoded < 0) | (encoded > self.num_classes)
        if wrong.any():
            raise DataError(
                f"classes of a mask must be under {self.num_classes + self.skip_zero} or "
                f"{self.ignore_index} (ignored), but got {int(stored[wrong][0])}"
            )
        return encoded

    def decode(self, encoded: Tensor) -> Tensor:
        """(…) encoded -> int64 classes from 0, ignored pixels ``ignore_index``."""
        classes = encoded.long() - 1
        return torch.where(encoded == 0, self.ignore_index, classes)


class MaskSplit(Dataset[Batch]):
    """A part of a data set: images (B, C, Y, X) and masks (B, Y, X).

    Args:
        examples: where images and masks come from.
        indices: which of them, in order.
        shape: (C, Y, X) that every transformed image must have.
        transform: takes and gives (image, mask) as torchvision's tv_tensors.
        normalise: makes float32 of a batch.
        labels: how classes are stored.
        window: images may be larger than ``shape``; they come out as their windows, of that size.
        keep_bytes: if all transformed images and masks together take no more, they are decoded
            once and kept. 0 where ``transform`` is random.
        threads: that decode them.

    Raises:
        DataError: the first image ends up in another shape.
    """

    def __init__(
        self,
        examples: MaskExamples,
        indices: Indices,
        *,
        shape: tuple[int, int, int],
        transform: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        normalise: Normalisation,
        labels: Labels,
        window: SlidingWindow | None = None,
        keep_bytes: float = 0.0,
        threads: int = 1,
    ) -> None:
        self.examples = examples
        self.indices = indices
        self.shape = shape
        self.transform = transform
        self.normalise = normalise
        self.labels = labels
        self.window = window
        self.threads = threads
        image, mask = self._example(0)
        nbytes = (image.nbytes + mask.nbytes) * len(indices)
        self.is_kept = window is None and nbytes <= keep_bytes

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Batch:
        """One image (C, Y, X) and its mask (Y, X)."""
        images, masks = self.__getitems__([index])
        return images[0], masks[0]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Images (B, C, Y, X) float32, normalised, and masks (B, Y, X) int64.

        With a window, images are (B * windows, C, y, x).
        """
        if self.is_kept:
            chosen = torch.as_tensor(indices)
            images, masks = (kept[chosen] for kept in self._kept)
        else:
            pairs = [self._example(index) for index in indices]
            if len({mask.shape for _, mask in pairs}) > 1:
                raise DataError("images of different sizes need data.eval_batch_size 1")
            images, masks = (torch.stack(tensors) for tensors in zip(*pairs, strict=True))
        if self.window is not None:
            images = self.window.cut(images)
        return self.normalise(images), self.labels.decode(masks)

    def _example(self, index: int) -> tuple[Tensor, Tensor]:
        number = int(self.indices[index])
        image, mask = self.examples.example(number)
        try:
            encoded = self.labels.encode(mask)
        except DataError as error:
            raise DataError(f"mask {number}: {error}") from error
        pair = self.transform(tv_tensors.Image(image), tv_tensors.Mask(encoded))
        image, mask = (tensor.as_subclass(Tensor) for tensor in pair)
        if self.window is not None:
            self.window.corners(*image.shape[1:])
        elif tuple(image.shape) != self.shape:
            raise DataError(
                f"images must end up as {self.shape} (C, Y, X), but data.transforms makes them "
                f"{tuple(image.shape)}: end with center_crop, or with resize to both sides"
            )
        return image, mask

    @cached_property
    def _kept(self) -> tuple[Tensor, Tensor]:
        with ThreadPoolExecutor(self.threads) as pool:
            images, masks = zip(*pool.map(self._example, range(len(self))), strict=True)
        return torch.stack(images), torch.stack(masks)


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
    parts = _choose_parts(config, sources)
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
    )


class _TableMasks:
    """Rows of a `datasets.Dataset` with an image and a mask."""

    def __init__(self, table: Any, config: Data, channels: int) -> None:
        folder = files_folder(config)
        self.images = PictureColumn(table, config.image, folder=folder)
        self.masks = PictureColumn(table, config.target, folder=folder)
        self.convert = partial(to_tensor, channels=channels, max_value=config.max_value)

    def __len__(self) -> int:
        return len(self.images)

    def example(self, index: int) -> tuple[Tensor, Tensor]:
        image = self.images.read(index, self.convert)
        mask = self.masks.read(index, _mask)
        if mask.shape != image.shape[1:]:
            raise DataError(
                f"a mask must have its image's size, but mask {index} is {tuple(mask.shape)} "
                f"and its image {tuple(image.shape[1:])} (Y, X)"
            )
        return image, mask


def _mask(value: Any) -> Tensor:
    array = np.array(value)
    if array.ndim != 2 or array.dtype.kind not in "iu":
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
    return {name: _TableMasks(table, config, channels) for name, table in tables.items()}, names


def _choose_parts(
    config: Data, sources: Mapping[str, MaskExamples]
) -> dict[str, tuple[MaskExamples, Indices]]:
    """The images of each part: splits of the source, or carved out of its train split."""
    train = _own_split(sources, config.splits.train, "train")
    parts: dict[str, tuple[MaskExamples, Indices]] = {}
    carved: dict[str, int] = {}
    for name, default in DEFAULT_SHARES.items():
        wanted = getattr(config.splits, name)
        if wanted is None:
            wanted = name if name in sources else default
        if isinstance(wanted, str):
            examples = _own_split(sources, wanted, name)
            parts[name] = (examples, np.arange(len(examples)))
        else:
            carved[name] = round(wanted * len(train))
    pieces = stratified(
        np.zeros(len(train), dtype=np.int64), list(carved.values()), seed=config.seed
    )
    for name, indices in zip([*carved, "train"], pieces, strict=True):
        parts[name] = (train, indices)
    for name, (_, indices) in parts.items():
        if len(indices) == 0:
            raise DataError(f"every split must have images, but {name} gets none: see data.splits")
    return parts


def _own_split(sources: Mapping[str, MaskExamples], wanted: str, field: str) -> MaskExamples:
    if wanted not in sources:
        raise DataError(
            f"data.splits.{field} must be a split of the source, but got {wanted!r}; "
            f"{nearest(wanted, sources)}"
        )
    return sources[wanted]


def _joint(
    specs: Sequence[TransformSpec] | None, size: tuple[int, int]
) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """One function that transforms an image and its mask alike."""
    if specs is None:
        one = fit(size)
        return lambda image, mask: (one(image), one(mask))
    for spec in specs:
        if isinstance(spec, IMAGES_ONLY):
            raise DataError(f"{spec.name} can't transform masks: leave it out of data.transforms")
    if not specs:
        return lambda image, mask: (image, mask)
    both: Any = build_transform(specs, size)
    return lambda image, mask: both(image, mask)
