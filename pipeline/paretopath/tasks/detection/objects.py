"""What passes between a detector and its task: padded images, the objects in them, detections.

A family of detectors takes :class:`PaddedImages` (or a plain tensor, of images without padding),
and its exits give :class:`RawDetections`. Losses, assigners and post-processing stay those of the
exit's own head; the task says what they are of.
"""

from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from paretopath.elastic.batched import Batched

NOTHING = -1
"""The label of a place that holds no object."""


@dataclass(frozen=True)
class Objects(Batched):
    """What is to be found in the images of a batch, N places an image, the used ones first.

    Attributes:
        boxes: (B, N, 4) float32 x0, y0, x1, y1 in pixels of the model's input; 0 in unused places.
        labels: (B, N) int64 classes from 0; :data:`NOTHING` in unused places.
        crowd: (B, N) bool: a box around a crowd. It teaches nothing, and what is found in it counts
            neither as right nor as wrong.
        areas: (B, N) float32 pixels of the original image, by which mAP tells small from large.
        scale: (B, 2) float32 pixels of the model's input for one of the original image, (y, x).
        original: (B, 2) int64 height and width of the original image.
    """

    boxes: Tensor
    labels: Tensor
    crowd: Tensor
    areas: Tensor
    scale: Tensor
    original: Tensor

    @property
    def learnt(self) -> Tensor:
        """(B, N) bool: the places that losses are of, crowds and unused ones left out."""
        return (self.labels != NOTHING) & ~self.crowd

    def of_image(self, index: int) -> tuple[Tensor, Tensor]:
        """Boxes (n, 4) and labels (n,) that losses of one image are of."""
        chosen = self.learnt[index]
        return self.boxes[index][chosen], self.labels[index][chosen]


@dataclass(frozen=True)
class PaddedImages(Batched):
    """Images of several sizes in one batch.

    Attributes:
        pixels: (B, C, Y, X) float32, normalised; 0 to the right of and below each image.
        sizes: (B, 2) int64 height and width of what is no padding.
        targets: in training what is to be found, for families that learn from it in their forward
            pass (denoising queries, sampled regions); None otherwise.
    """

    pixels: Tensor
    sizes: Tensor
    targets: Objects | None = None

    @classmethod
    def of(cls, images: "PaddedImages | Tensor") -> "PaddedImages":
        """The same, or a tensor (B, C, Y, X) as images without padding."""
        if isinstance(images, PaddedImages):
            return images
        size = torch.tensor(images.shape[2:], device=images.device)
        return cls(images, size.expand(len(images), 2))

    @property
    def padding(self) -> Tensor:
        """(B, Y, X) bool, True where a pixel is padding."""
        height, width = self.pixels.shape[-2:]
        y = torch.arange(height, device=self.sizes.device)[None, :, None] >= self.sizes[:, :1, None]
        x = torch.arange(width, device=self.sizes.device)[None, None, :] >= self.sizes[:, 1:, None]
        return y | x


@dataclass(frozen=True)
class Detections(Batched):
    """What a detector finds, K places an image, the surest first, unused ones last.

    Attributes:
        boxes: (B, K, 4) x0, y0, x1, y1 in pixels of the model's input.
        scores: (B, K) in [0, 1].
        labels: (B, K) int64 classes from 0; :data:`NOTHING` in unused places.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def in_original_pixels(self, scale: Tensor) -> Self:
        """The same with boxes in pixels of the original images.

        Args:
            scale: see :class:`Objects`.
        """
        y, x = scale.to(self.boxes).unbind(1)
        return type(self)(
            self.boxes / torch.stack([x, y, x, y], 1)[:, None], self.scores, self.labels
        )


@runtime_checkable
class RawDetections(Protocol):
    """What an exit of a detector gives: its head's outputs, as a node of PyTorch's trees."""

    def loss(self, targets: Objects) -> Tensor:
        """The training loss of the head that made it, a scalar; with the losses of what was
        learnt on the way to it (proposals, denoising queries), where the images had targets.
        """
        ...

    def predict(self) -> Detections:
        """The head's own post-processing; boxes lie inside the images, padding left out."""
        ...

    def distill(self, teacher: Any) -> Tensor:
        """How far its boxes and class logits are from those of matched places of a teacher's
        (detached) output, a scalar, 0 where they agree.
        """
        ...
