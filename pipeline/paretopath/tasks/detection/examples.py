"""Images with objects, wherever they come from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from paretopath.data.pictures import PictureColumn
from paretopath.data.scenes import SceneExamples
from paretopath.errors import DataError
from paretopath.tasks.detection.annotations import Annotation


class ObjectExamples(Protocol):
    """Images and objects as their source has them."""

    def __len__(self) -> int: ...

    def example(self, index: int) -> tuple[Tensor, Annotation]:
        """An image (C, Y, X), uint8 or float32 in [0, 1], and its objects, cut at its rim."""
        ...

    def annotation(self, index: int) -> Annotation:
        """The objects alone, as they are stored."""
        ...

    def describe(self, index: int) -> str:
        """Which image it is, for errors."""
        ...


@dataclass(frozen=True)
class PicturesWithObjects:
    """Files of images, and what is known of each.

    Attributes:
        pictures: the files.
        annotations: of each image.
        sizes: height and width of each image as the annotations have them; None where they don't.
        convert: makes (C, Y, X) of a picture.
    """

    pictures: PictureColumn
    annotations: Sequence[Annotation]
    sizes: Sequence[tuple[int, int] | None]
    convert: Callable[[Any], Tensor]

    def __len__(self) -> int:
        return len(self.annotations)

    def example(self, index: int) -> tuple[Tensor, Annotation]:
        """See :class:`ObjectExamples`."""
        image = self.pictures.read(index, self.convert)
        size = (image.shape[1], image.shape[2])
        said = self.sizes[index]
        if said is not None and said != size:
            turned = ": is it turned by its EXIF orientation?" if said == size[::-1] else ""
            raise DataError(
                f"an image must have the size that its annotations are for, but "
                f"{self.describe(index)} is {size[1]} x {size[0]}, and they say "
                f"{said[1]} x {said[0]}{turned}"
            )
        return image, self.annotations[index].inside(*size)

    def annotation(self, index: int) -> Annotation:
        """See :class:`ObjectExamples`."""
        return self.annotations[index]

    def describe(self, index: int) -> str:
        """See :class:`ObjectExamples`."""
        return self.pictures.describe(index)


@dataclass(frozen=True)
class ScenesWithObjects:
    """Scenes of digits.

    Attributes:
        scenes: of one split.
    """

    scenes: SceneExamples

    def __len__(self) -> int:
        return len(self.scenes)

    def example(self, index: int) -> tuple[Tensor, Annotation]:
        """See :class:`ObjectExamples`."""
        scene = self.scenes.scene(index)
        boxes = scene.boxes.astype(np.float32)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1)
        found = Annotation(boxes, scene.digits, np.zeros(len(boxes), dtype=np.bool_), areas)
        return torch.as_tensor(scene.image), found

    def annotation(self, index: int) -> Annotation:
        """See :class:`ObjectExamples`."""
        return self.example(index)[1]

    def describe(self, index: int) -> str:
        """See :class:`ObjectExamples`."""
        return self.scenes.describe(index)
