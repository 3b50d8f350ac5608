"""Images with a class for every pixel: splits whose images and masks are transformed in step."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors

from paretopath.data.splits import Batch, Indices, Normalisation
from paretopath.errors import DataError
from paretopath.progress import Progress, unheard
from paretopath.tasks.segmentation.labels import Labels
from paretopath.tasks.segmentation.windows import SlidingWindow


class MaskExamples(Protocol):
    """Images and masks as their source has them."""

    def __len__(self) -> int: ...

    def example(self, index: int) -> tuple[Tensor, Tensor]:
        """An image (C, Y, X), uint8 or float32 in [0, 1], and its mask (Y, X), uint8 or int32."""
        ...

    def mask(self, index: int) -> Tensor:
        """The mask alone."""
        ...

    def describe(self, index: int) -> str:
        """Which mask it is, for errors."""
        ...


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
        self.progress: Progress = unheard

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
            raise DataError(f"{self.examples.describe(number)}: {error}") from error
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
        pairs = []
        self.progress(0, len(self))
        with ThreadPoolExecutor(self.threads) as pool:
            for pair in pool.map(self._example, range(len(self))):
                pairs.append(pair)
                self.progress(len(pairs), len(self))
        images, masks = zip(*pairs, strict=True)
        return torch.stack(images), torch.stack(masks)
