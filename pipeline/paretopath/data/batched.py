"""Random transforms of whole batches, each image with its own draw: no Python runs per image."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from paretopath.recipe.transforms import (
    RandomAffine,
    RandomHorizontalFlip,
    RandomVerticalFlip,
    TransformSpec,
)

BatchTransform = Callable[[Tensor], Tensor]


def is_batchable(spec: TransformSpec) -> bool:
    """Whether :func:`build_batch_transform` knows a transform: those that keep an image's shape."""
    return isinstance(spec, RandomAffine | RandomHorizontalFlip | RandomVerticalFlip)


def build_batch_transform(specs: Sequence[TransformSpec]) -> BatchTransform:
    """One function over batches (B, C, Y, X) uint8 or float32, drawing from the global generator.

    Args:
        specs: batchable ones.
    """

    def transform(images: Tensor) -> Tensor:
        for spec in specs:
            images = _apply(spec, images)
        return images

    return transform


def _apply(spec: TransformSpec, images: Tensor) -> Tensor:
    batch = len(images)
    match spec:
        case RandomHorizontalFlip():
            return torch.where(_chosen(batch, spec.p), images.flip(-1), images)
        case RandomVerticalFlip():
            return torch.where(_chosen(batch, spec.p), images.flip(-2), images)
        case RandomAffine():
            height, width = images.shape[-2:]
            angles = torch.empty(batch).uniform_(-spec.degrees, spec.degrees)
            shares = spec.translate or (0.0, 0.0)
            # whole pixels, as torchvision draws them
            shift_x = torch.empty(batch).uniform_(-shares[0] * width, shares[0] * width).round()
            shift_y = torch.empty(batch).uniform_(-shares[1] * height, shares[1] * height).round()
            scales = torch.empty(batch).uniform_(*(spec.scale or (1.0, 1.0)))
            return affine(
                images, angles, torch.stack([shift_x, shift_y], 1), scales, spec.interpolation
            )
    raise NotImplementedError(f"{spec.name} is not done by batches")


def _chosen(batch: int, probability: float) -> Tensor:
    return (torch.rand(batch) < probability).reshape(-1, 1, 1, 1)


def affine(
    images: Tensor, angles: Tensor, shifts: Tensor, scales: Tensor, interpolation: str
) -> Tensor:
    """Turns, scales and shifts each image about its centre; what comes from outside is black.

    Args:
        images: (B, C, Y, X) uint8 or float32.
        angles: (B,) degrees, clockwise.
        shifts: (B, 2) pixels to the right and down.
        scales: (B,) over 0.
        interpolation: ``nearest`` or ``bilinear``.

    Returns:
        Images of the same shape and type.
    """
    height, width = images.shape[-2:]
    radians = angles * (math.pi / 180)
    cos, sin = torch.cos(radians) / scales, torch.sin(radians) / scales
    # output pixel -> input pixel, both in pixels from the centre: R(-angle) / scale (p - shift)
    inverse = torch.stack([torch.stack([cos, sin], 1), torch.stack([-sin, cos], 1)], 1)
    y = torch.arange(height) - (height - 1) / 2
    x = torch.arange(width) - (width - 1) / 2
    places = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(1, -1, 2)
    sources = (places - shifts[:, None]) @ inverse.transpose(1, 2)
    grid = sources * torch.tensor([2 / width, 2 / height])
    grid = grid.reshape(len(images), height, width, 2)
    moved = F.grid_sample(images.float(), grid, mode=interpolation, align_corners=False)
    return moved.round().to(torch.uint8) if images.dtype == torch.uint8 else moved
