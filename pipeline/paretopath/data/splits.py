"""Splits of a data set: which images belong to each, and the tensors that come out."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from paretopath.data.order import EpochBatches, EpochShuffle
from paretopath.data.workers import ended_by_its_parent_alone
from paretopath.errors import DataError, InvalidValueError, nearest
from paretopath.progress import PhaseListener, Progress, unheard

SplitName = Literal["train", "calibration", "validation", "test"]
Batch = tuple[Any, Any]
"""Images and targets, batch first: tensors, or what a task of one's own makes of them."""

Indices = npt.NDArray[np.int64]

_CHUNK = 32  # images that a thread decodes at a time: of small ones, more than a task costs


class Examples(Protocol):
    """Images and targets as their source has them."""

    @property
    def targets(self) -> Tensor:
        """(n, …) what is right for each image: its class from 0, or what else the task asks."""
        ...

    def __len__(self) -> int: ...

    def image(self, index: int) -> Tensor:
        """One image (C, Y, X): uint8 from 0 to 255, or float32 from 0 to 1."""
        ...

    def describe(self, index: int) -> str:
        """Which image it is, for errors."""
        ...


@dataclass(frozen=True)
class Normalisation:
    """Pixels scaled to [0, 1], less a mean, over a standard deviation.

    Attributes:
        mean, std: (C, 1, 1) or (1, 1, 1).
    """

    mean: Tensor
    std: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """(B, C, Y, X) uint8 or float32 -> float32."""
        scale = 255.0 if images.dtype == torch.uint8 else 1.0
        return (images / scale - self.mean) / self.std

    def undone(self, images: Tensor) -> Tensor:
        """(B, C, Y, X) normalised -> uint8."""
        return ((images.cpu() * self.std + self.mean).clamp(0, 1) * 255).round().to(torch.uint8)


class Split(Dataset[Batch]):
    """A part of a data set, as tensors.

    Whole batches are fetched at once; from a split that is kept in memory by one indexing.

    Args:
        examples: where images come from.
        indices: which of them, in order; at least one.
        shape: (C, Y, X) that every transformed image must have.
        transform: what is done to an image (C, Y, X) before it is normalised.
        normalise: makes float32 of a batch.
        augment: random transforms of a batch (B, C, Y, X) before it is normalised.
        keep_bytes: if all transformed images together take no more, they are decoded once, when the
            first batch is asked for, and kept. 0 where ``transform`` is random.
        threads: that decode them.

    Raises:
        DataError: here or when a batch is asked for: an image can't be read, or has another shape.
    """

    def __init__(
        self,
        examples: Examples,
        indices: Indices,
        *,
        shape: tuple[int, int, int],
        transform: Callable[[Tensor], Tensor],
        normalise: Normalisation,
        augment: Callable[[Tensor], Tensor] | None = None,
        keep_bytes: float = 0.0,
        threads: int = 1,
    ) -> None:
        self.examples = examples
        self.indices = indices
        self.shape = shape
        self.transform = transform
        self.normalise = normalise
        self.augment = augment
        self.threads = threads
        self.targets = examples.targets[torch.from_numpy(indices)]
        self.sample = self._image(0)
        self.is_kept = self.sample.nbytes * len(indices) <= keep_bytes
        self.progress: Progress = unheard

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Batch:
        """One image (C, Y, X) and its target."""
        images, targets = self.__getitems__([index])
        return images[0], targets[0]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Images (B, C, Y, X) float32, normalised, and targets (B, …): what a loader fetches."""
        chosen = torch.as_tensor(indices)
        if self.is_kept:
            images = self._kept[chosen]
        else:
            images = torch.stack([self._image(index) for index in indices])
        if self.augment is not None:
            images = self.augment(images)
        return self.normalise(images), self.targets[chosen]

    def _image(self, index: int) -> Tensor:
        number = int(self.indices[index])
        image = self.transform(self.examples.image(number))
        if image.shape != self.shape:
            raise DataError(
                f"images must end up as {self.shape} (C, Y, X), but data.transforms makes "
                f"{self.examples.describe(number)} {tuple(image.shape)}: end with center_crop, or "
                f"resize both sides"
            )
        return image

    @cached_property
    def _kept(self) -> Tensor:
        kept = torch.empty((len(self), *self.sample.shape), dtype=self.sample.dtype)
        self.progress(0, len(self))
        with ThreadPoolExecutor(self.threads) as pool:
            starts = range(0, len(self), _CHUNK)
            for start, images in zip(starts, pool.map(self._chunk, starts), strict=True):
                kept[start : start + len(images)] = images
                self.progress(start + len(images), len(self))
        return kept

    def _chunk(self, start: int) -> Tensor:
        end = min(start + _CHUNK, len(self))
        return torch.stack([self._image(index) for index in range(start, end)])


class AnySplit(Protocol):
    """What :class:`DataSplits` asks of a part: :class:`Split`, or one with other targets."""

    @property
    def is_kept(self) -> bool:
        """Whether its images stay in memory."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Batch: ...

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Images and targets of a batch."""
        ...


@runtime_checkable
class Telling(Protocol):
    """A split that tells how many of its images are read into memory."""

    progress: Progress


@dataclass(frozen=True)
class DataSplits:
    """The fixed parts of a data set.

    Attributes:
        train: for gradients, with the training transforms.
        calibration: the same images with the evaluation transforms, for statistics.
        validation: for choosing paths and thresholds.
        test: for reporting, never for choosing.
        class_names: of the model's outputs, in their order.
        batch_size: images a batch of ``train`` by default.
        eval_batch_size: images a batch of the other splits by default.
        workers: processes that decode images which are not kept in memory.
        repeats: whether images of ``train`` are the same in every epoch: not augmented.
    """

    train: AnySplit
    calibration: AnySplit
    validation: AnySplit
    test: AnySplit
    class_names: tuple[str, ...]
    batch_size: int
    eval_batch_size: int
    workers: int
    repeats: bool = False

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)

    def split(self, name: SplitName) -> AnySplit:
        """One split by its name."""
        if name not in get_args(SplitName):
            raise InvalidValueError(
                f"there is no split {name!r}; {nearest(name, get_args(SplitName))}"
            )
        found: AnySplit = getattr(self, name)
        return found

    def tell(self, on_phase: PhaseListener) -> None:
        """Lets those splits that stay in memory tell how far they are when they are read."""
        for name in reversed(get_args(SplitName)):  # where two are the same, as that for training
            part = self.split(name)
            if part.is_kept and isinstance(part, Telling):  # others decode in worker processes
                part.progress = partial(on_phase, f"reading {name} images")

    def loader(
        self,
        split: SplitName,
        *,
        batch_size: int | None = None,
        shuffle_seed: int | None = None,
        drop_last: bool = False,
        share: tuple[int, int] = (0, 1),
    ) -> DataLoader[Any]:
        """Batches: images (B, C, Y, X) float32 and their targets. Can be iterated repeatedly.

        Args:
            split: which.
            batch_size: images a batch; ``batch_size`` or ``eval_batch_size`` by default.
            shuffle_seed: a new order each epoch (see :class:`EpochBatches`), and the seed of random
                transforms in workers; without workers (always for a split that is kept in memory)
                those draw from torch's global generator. None for the split's own order.
            drop_last: leave out a last batch that is smaller, unless it is the only one.
            share: (rank, number) of the processes that share each batch; needs a ``shuffle_seed``.

        Raises:
            InvalidValueError: the batch can't be divided evenly among the processes.
        """
        part = self.split(split)
        size = batch_size or (self.batch_size if split == "train" else self.eval_batch_size)
        workers = 0 if part.is_kept else self.workers
        drops = drop_last and len(part) >= size
        order: dict[str, Any] = {"batch_size": size, "drop_last": drops}
        if shuffle_seed is not None:
            batches = EpochBatches(
                EpochShuffle(len(part), seed=shuffle_seed),
                batch_size=size,
                drop_last=drops,
                rank=share[0],
                world_size=share[1],
            )
            generator = torch.Generator().manual_seed(shuffle_seed)
            order = {"batch_sampler": batches, "generator": generator}
        return DataLoader(
            part,  # type: ignore[arg-type]
            **order,
            num_workers=workers,
            persistent_workers=workers > 0,
            worker_init_fn=ended_by_its_parent_alone,
            pin_memory=torch.cuda.is_available(),
            collate_fn=_as_is,
        )


def _as_is(batch: Any) -> Any:
    """What ``Split.__getitems__`` gives is a batch already."""
    return batch


def stratified(labels: Indices, sizes: Sequence[int], *, seed: int) -> list[Indices]:
    """Disjoint parts in which every class has its share, to within one image.

    All images stand in one row, class by class and shuffled within each; a part takes evenly spaced
    places of what the parts before it left (systematic sampling, Cochran, "Sampling Techniques",
    chapter 8). A part does not depend on those after it.

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
    shuffled = np.random.Generator(np.random.PCG64(seed)).permutation(len(labels))
    left = shuffled[np.argsort(labels[shuffled], kind="stable")].astype(np.int64)
    parts = []
    for size in sizes:
        places = ((np.arange(size) + 0.5) * len(left) / max(size, 1)).astype(np.int64)
        parts.append(np.sort(left[places]))
        left = np.delete(left, places)
    return [*parts, np.sort(left)]
