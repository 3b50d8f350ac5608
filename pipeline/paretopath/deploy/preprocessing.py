"""What a deployed model takes: images as the recipe's evaluation makes them, and no others."""

from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from paretopath.errors import InvalidValueError
from paretopath.recipe import Data

if TYPE_CHECKING:
    from paretopath.data.splits import Normalisation
    from paretopath.data.transforms import ImageTransform


class Preprocessing:
    """Makes the tensor that a model takes of a picture, and says what is wrong with another one.

    Args:
        shape: (C, Y, X) of an image as the model takes it.
        data: the recipe's section, whose evaluation transforms and normalisation are done; None
            where there is none, which leaves the checks.
    """

    def __init__(self, shape: tuple[int, int, int], data: Data | None) -> None:
        self.shape = shape
        self.data = data

    def __call__(self, image: Any) -> Tensor:
        """One image as a batch (1, C, Y, X), float32.

        Args:
            image: a PIL image, which is turned as its EXIF orientation says; or an array or tensor
                (Y, X), (Y, X, C) or (C, Y, X), its values as in the recipe's data: from 0 to 255 if
                integers, from 0 to 1 if floats, unless ``data.max_value`` says otherwise.

        Raises:
            InvalidValueError: the recipe has no data, or its transforms end in another size.
            DataError: not an image, or another number of channels.
        """
        # here, since they take seconds
        from PIL import Image, ImageOps

        from paretopath.data.images import to_tensor

        if self.data is None:
            raise InvalidValueError(
                "the recipe has no section data, so that it says nothing of how images are made; "
                f"the model takes {self.expected}"
            )
        if isinstance(image, Tensor):
            image = image.detach().cpu().numpy()
        elif isinstance(image, Image.Image):
            image = ImageOps.exif_transpose(image)  # upright, as data is decoded
        pixels = to_tensor(image, self.shape[0], max_value=self.data.max_value)
        transform, normalise = self._made
        ready = normalise(transform(pixels)[None])
        if ready.shape[1:] != self.shape:
            raise InvalidValueError(
                f"data.transforms makes {tuple(ready.shape[1:])} (C, Y, X) of this image, but the "
                f"model takes {self.shape}; end with center_crop, or resize both sides"
            )
        return ready

    @cached_property
    def _made(self) -> "tuple[ImageTransform, Normalisation]":
        from paretopath.data.loading import normalisation
        from paretopath.data.transforms import build_transform, fit

        assert self.data is not None
        size = (self.shape[1], self.shape[2])
        specs = self.data.transforms.evaluation
        transform = fit(size) if specs is None else build_transform(specs, size)
        return transform, normalisation(self.data, self.shape[0])

    @property
    def expected(self) -> str:
        """What the model takes, for people."""
        channels, height, width = self.shape
        text = f"floats of shape (B, {channels}, {height}, {width})"
        if self.data is None:
            return text
        mean, std = (
            ", ".join(f"{value:g}" for value in values)
            for values in (self.data.mean, self.data.std)
        )
        return f"{text}, scaled to [0, 1], less {mean}, over {std}: what preprocess(image) makes"

    def check(self, images: Any, weight: Tensor) -> None:
        """Refuses what the model would fail at, or be wrong about.

        Args:
            images: to run.
            weight: one of the model's, for type and device.

        Raises:
            InvalidValueError: not such a batch; says what there is, and what the model takes.
        """
        problem = self._problem(images, weight)
        if problem:
            raise InvalidValueError(f"{problem}; the model takes {self.expected}")

    def _problem(self, images: Any, weight: Tensor) -> str | None:
        if not isinstance(images, Tensor):
            return f"images must be a tensor, but got {type(images).__name__}"
        if images.ndim != 4 or tuple(images.shape[1:]) != self.shape:
            return (
                f"images must have shape (B, {', '.join(map(str, self.shape))}), for which its "
                f"costs hold, but got {tuple(images.shape)}"
            )
        if len(images) == 0:
            return "a batch must hold at least one image, but got none"
        if images.device.type != weight.device.type:
            return f"images must be on {weight.device}, as the model is, but are on {images.device}"
        autocast = torch.is_autocast_enabled(images.device.type)
        if images.dtype != weight.dtype and not (autocast and images.is_floating_point()):
            return f"images must be {_name(weight.dtype)}, but got {_name(images.dtype)}"
        return None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
