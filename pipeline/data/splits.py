"""Splits of a data set: which images belong to each, and the tensors that come out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.errors import InvalidValueError, nearest

SplitName = Literal["train", "calibration", "validation", "test"]
Batch = tuple[Tensor, Tensor]
Indices = npt.NDArray[np.int64]


class Examples(Protocol):
    """Images and labels as their source has them."""

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """(n,) class of each image, from 0."""
        ...

    def image(self, index: int) -> Tensor:
        """One image (C, Y, X): uint8 from 0 to 255, or float32 from 0 to 1."""
        ...


@dataclass(frozen=True)
class Normalisation:
    """Maps pixels to what the model takes: scaled to [0, 1], less the mean, over the standard deviation.

    Attributes:
        mean, std: (C, 1, 1) or (1, 1, 1).
    """

    mean: Tensor
    std: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, Y, X) uint8 or float32 -> float32."""
        scale = 255.0 if images.dtype == torch.uint8 else 1.0
        return (images / scale - self.mean) / self.std


class Split(Dataset[tuple[Tensor, Tensor]]):
    """A part of a data set, as tensors.

    Whole batches are fetched at once; when the split is kept in memory, by one indexing of a tensor.

    Args:
        examples: where images come from.
        indices: which of them, in order.
        transform: what is done to an image (C, Y, X) before it is normalised.
        normalise: makes float32 of a batch.
        keep: decode every image once, when the first is asked for, and keep them. The transform must not be random.
    """

    def __init__(
        self,
        examples: Examples,
        indices: Indices,
        *,
        transform: Callable[[Tensor], Tensor],
        normalise: Normalisation,
        keep: bool,
    ) -> None:
        self.examples = examples
        self.indices = indices
        self.transform = transform
        self.normalise = normalise
        self.keep = keep
        self.labels = torch.from_numpy(examples.labels[indices])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Batch:
        """One image (C, Y, X) and its label, a scalar."""
        images, labels = self.__getitems__([index])
        return images[0], labels[0]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Images (B, C, Y, X) float32, normalised, and labels (B,) int64: what a DataLoader fetches."""
        chosen = torch.as_tensor(indices)
        if self.keep:
            return self.normalise(self._kept[chosen]), self.labels[chosen]
        return self.normalise(torch.stack([self._image(i) for i in indices])), self.labels[chosen]

    def first(self) -> Tensor:
        """The first image (C, Y, X), transformed, not normalised; decodes no other."""
        return self._image(0)

    def _image(self, index: int) -> Tensor:
        return self.transform(self.examples.image(int(self.indices[index])))

    @cached_property
    def _kept(self) -> Tensor:
        return torch.stack([self._image(i) for i in range(len(self))])


@dataclass(frozen=True)
class DataSplits:
    """The fixed parts of a data set.

    Attributes:
        train: for gradients, with the training transforms.
        calibration: the same images with the evaluation transforms, for statistics.
        validation: for choosing paths and thresholds.
        test: for reporting, never for choosing.
        class_names: one a class, in the order of the labels.
        batch_size, eval_batch_size: images a batch by default.
        workers: processes that decode images which are not kept in memory.
    """

    train: Split
    calibration: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    batch_size: int
    eval_batch_size: int
    workers: int

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    def split(self, name: SplitName) -> Split:
        """One split by its name."""
        if name not in get_args(SplitName):
            raise InvalidValueError(
                f"there is no split {name!r}; {nearest(name, get_args(SplitName))}"
            )
        found: Split = getattr(self, name)
        return found

    def loader(
        self,
        split: SplitName,
        *,
        shuffle: bool = False,
        batch_size: int | None = None,
        generator: torch.Generator | None = None,
        drop_last: bool = False,
    ) -> DataLoader[Any]:
        """Batches of a split: images (B, C, Y, X) float32 and labels (B,) int64. Can be iterated again and again.

        Args:
            split: which.
            shuffle: a new order each time, drawn from ``generator``; else the split's own.
            batch_size: images a batch; ``batch_size`` for train, ``eval_batch_size`` for the others by default.
            generator: required to shuffle. Workers' random transforms are seeded from it as well; without workers
                random transforms draw from torch's global generator.
            drop_last: leave out a last batch that is smaller, unless it is the only one.
        """
        part = self.split(split)
        if shuffle and generator is None:
            raise InvalidValueError("a shuffled loader must have a generator, but got None")
        size = batch_size or (self.batch_size if split == "train" else self.eval_batch_size)
        workers = 0 if part.keep else self.workers
        return DataLoader(
            part,
            batch_size=size,
            shuffle=shuffle,
            generator=generator,
            drop_last=drop_last and len(part) >= size,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=_as_is,
        )


def _as_is(batch: Any) -> Any:
    return batch


def stratified(labels: npt.NDArray[np.int64], sizes: Sequence[int], *, seed: int) -> list[Indices]:
    """Disjoint parts in which every class has its share, to within one image.

    All images are put in one row, class by class and shuffled within each class; a part takes evenly spaced places of
    what the parts before it left (systematic sampling), so a part does not change with those after it.

    Args:
        labels: (n,) class of each image.
        sizes: of each part; together at most n.
        seed: of the shuffle, at least 0.

    Returns:
        The indices of each part, ascending, and last those that no part took.
    """
    if sum(sizes) > len(labels):
        raise InvalidValueError(
            f"parts must have at most {len(labels)} images together, but got {list(sizes)}"
        )
    rng = np.random.Generator(np.random.PCG64(seed))
    shuffled = rng.permutation(len(labels))
    left = shuffled[np.argsort(labels[shuffled], kind="stable")].astype(np.int64)
    parts = []
    for size in sizes:
        places = ((np.arange(size) + 0.5) * len(left) / max(size, 1)).astype(np.int64)
        parts.append(np.sort(left[places]))
        left = np.delete(left, places)
    return [*parts, np.sort(left)]
