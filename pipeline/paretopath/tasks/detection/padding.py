"""Splits whose images keep their proportions: brought into the model's input and padded there."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from paretopath.data.splits import Batch, Indices, Normalisation
from paretopath.errors import DataError
from paretopath.progress import Progress, unheard
from paretopath.tasks.detection.annotations import LEAST_SIDE, Annotation, sides
from paretopath.tasks.detection.examples import ObjectExamples
from paretopath.tasks.detection.objects import NOTHING, Objects, PaddedImages

JointTransform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Takes and gives (image, boxes) as torchvision's tv_tensors."""


@dataclass(frozen=True)
class Canvas:
    """One image in the top left corner of the model's input, with its objects.

    Attributes:
        pixels: (C, Y, X), uint8 or float32 in [0, 1]; 0 where it is padded.
        size: height and width of what is no padding.
        original: height and width of the image as it came.
        objects: in the canvas's pixels; areas are those of the original.
    """

    pixels: Tensor
    size: tuple[int, int]
    original: tuple[int, int]
    objects: Annotation


def place(
    image: Tensor, objects: Annotation, transform: JointTransform | None, size: tuple[int, int]
) -> Canvas:
    """Transforms an image and its objects, and brings them into the model's input.

    Args:
        image: (C, y, x), uint8 or float32 in [0, 1].
        objects: inside the image.
        transform: done first.
        size: (Y, X) of the input, which the image fills in height or width.
    """
    original = (image.shape[1], image.shape[2])
    boxes = tv_tensors.BoundingBoxes(
        torch.from_numpy(objects.boxes), format="XYXY", canvas_size=original
    )
    pair: tuple[Tensor, Tensor] = (tv_tensors.Image(image), boxes)
    if transform is not None:
        pair = transform(*pair)
    height, width = pair[0].shape[-2:]
    scale = min(size[0] / height, size[1] / width)
    inner = tuple(
        min(most, max(1, round(length * scale)))
        for most, length in zip(size, (height, width), strict=True)
    )
    if inner != (height, width):
        pair = (
            v2.functional.resize(pair[0], list(inner)),
            v2.functional.resize(pair[1], list(inner)),
        )
    pixels = torch.zeros(image.shape[0], *size, dtype=image.dtype)
    pixels[:, : inner[0], : inner[1]] = pair[0].as_subclass(Tensor)
    found = pair[1].as_subclass(Tensor).numpy().astype(np.float32)
    limit = np.array([inner[1], inner[0]] * 2, dtype=np.float32)
    found = found.clip(0, limit)
    kept = np.flatnonzero(sides(found) >= (LEAST_SIDE if transform else 0))
    moved = Annotation(found, objects.labels, objects.crowd, objects.areas)
    return Canvas(pixels, (inner[0], inner[1]), original, moved[kept])


class Canvases:
    """The images of a part of a data set as the model gets them, before they are normalised.

    Args:
        examples: where images and objects come from.
        indices: which of them, in order.
        size: (Y, X) of the model's input.
        transform: see :func:`place`; None for none.
        keep_bytes: if all images together take no more, they are decoded once and kept. 0 where
            ``transform`` is random.
        threads: that decode them.
    """

    def __init__(
        self,
        examples: ObjectExamples,
        indices: Indices,
        *,
        size: tuple[int, int],
        transform: JointTransform | None,
        keep_bytes: float = 0.0,
        threads: int = 1,
    ) -> None:
        self.examples = examples
        self.indices = indices
        self.size = size
        self.transform = transform
        self.threads = threads
        self.is_kept = self._read(0).pixels.nbytes * len(indices) <= keep_bytes
        self.progress: Progress = unheard

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Canvas:
        return self._kept[index] if self.is_kept else self._read(index)

    def _read(self, index: int) -> Canvas:
        number = int(self.indices[index])
        image, objects = self.examples.example(number)
        try:
            return place(image, objects, self.transform, self.size)
        except ValueError as error:  # torchvision's: a crop larger than the image, and the like
            raise DataError(f"{self.examples.describe(number)}: {error}") from error

    @cached_property
    def _kept(self) -> list[Canvas]:
        kept: list[Canvas] = []
        self.progress(0, len(self))
        with ThreadPoolExecutor(self.threads) as pool:
            for canvas in pool.map(self._read, range(len(self))):
                kept.append(canvas)
                self.progress(len(kept), len(self))
        return kept


class ObjectSplit(Dataset[Batch]):
    """A part of a data set: padded images, and the objects in them.

    Args:
        canvases: its images; several splits may share them.
        normalise: makes float32 of a batch.
        teaches: whether images carry their objects along, for a family's forward pass.
    """

    def __init__(
        self, canvases: Canvases, normalise: Normalisation, *, teaches: bool = False
    ) -> None:
        self.canvases = canvases
        self.normalise = normalise
        self.teaches = teaches

    @property
    def is_kept(self) -> bool:
        """Whether its images stay in memory."""
        return self.canvases.is_kept

    @property
    def progress(self) -> Progress:
        """Hears how many images are read into memory."""
        return self.canvases.progress

    @progress.setter
    def progress(self, progress: Progress) -> None:
        self.canvases.progress = progress

    def __len__(self) -> int:
        return len(self.canvases)

    def __getitem__(self, index: int) -> Batch:
        """One image, as a batch of one, and its objects."""
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """:class:`PaddedImages` and :class:`Objects` of a batch."""
        canvases = [self.canvases[index] for index in indices]
        sizes = torch.tensor([canvas.size for canvas in canvases])
        pixels = self.normalise(torch.stack([canvas.pixels for canvas in canvases]))
        objects = collate(canvases)
        images = PaddedImages(pixels, sizes, objects if self.teaches else None)
        # what is padded is 0, whatever the mean
        pixels.masked_fill_(images.padding[:, None], 0)
        return images, objects


def collate(canvases: Sequence[Canvas]) -> Objects:
    """The objects of a batch, as many places an image as the fullest one needs."""
    batch = len(canvases)
    places = max((len(canvas.objects) for canvas in canvases), default=0)
    boxes, labels = torch.zeros(batch, places, 4), torch.full((batch, places), NOTHING)
    crowd, areas = torch.zeros(batch, places, dtype=torch.bool), torch.zeros(batch, places)
    for number, canvas in enumerate(canvases):
        found = canvas.objects
        used = slice(len(found))
        boxes[number, used] = torch.from_numpy(found.boxes)
        labels[number, used] = torch.from_numpy(found.labels)
        crowd[number, used] = torch.from_numpy(found.crowd)
        areas[number, used] = torch.from_numpy(found.areas)
    sizes = torch.tensor([canvas.size for canvas in canvases])
    original = torch.tensor([canvas.original for canvas in canvases])
    return Objects(boxes, labels, crowd, areas, sizes / original, original)
