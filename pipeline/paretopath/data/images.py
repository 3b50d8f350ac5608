"""Whatever holds an image, as a tensor with the channels that a model takes."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from paretopath.errors import DataError

Array = npt.NDArray[Any]

# How far over its white, or under 0, a value may be by rounding, as a share of white.
_SLACK = 1e-3


def to_tensor(value: Any, channels: int, *, max_value: float | None = None) -> Tensor:
    """One image (C, Y, X): uint8 as stored, or float32 in [0, 1] where it has more than 8 bits.

    Args:
        value: a PIL image, or what NumPy makes an array of: (Y, X), (Y, X, C) or (C, Y, X).
        channels: the C of the result. Grey and RGB are converted into each other; alpha is dropped.
        max_value: the value that means white; by type if None: 65535 for unsigned 16 bit, 255 for
            other integers, 1 for floats.

    Raises:
        DataError: not an image, another number of channels, or values out of [0, max_value].
    """
    array = _pil_array(value, channels) if isinstance(value, Image.Image) else _array(value)
    array = _channels_first(array, channels)
    if array.dtype == np.uint8 and max_value in (None, 255):
        return _recolour(torch.from_numpy(array), channels)
    white = max_value or _white(array.dtype)
    low, high = float(array.min()), float(array.max())
    if not (low >= -_SLACK * white and high <= (1 + _SLACK) * white):
        raise DataError(
            f"an image's values must be in [0, {white:g}], but are in [{low:g}, {high:g}]: "
            f"data.max_value tells which value means white"
        )
    return _recolour(torch.from_numpy(array.astype(np.float32) / np.float32(white)), channels)


def _white(dtype: np.dtype[Any]) -> float:
    if dtype == np.uint16:
        return 65535.0
    return 255.0 if dtype.kind in "iu" else 1.0


def _pil_array(image: Image.Image, channels: int) -> Array:
    if image.mode.startswith("I;16"):
        return np.array(image, dtype=np.uint16)
    if image.mode not in ("L", "RGB", "I", "F"):
        is_grey = channels == 1 and image.mode in ("1", "LA", "La")
        image = image.convert("L" if is_grey else "RGB")
    return np.array(image)


def _array(value: Any) -> Array:
    try:
        array = np.array(value)
    except ValueError:  # rows of different lengths
        array = np.array(None)
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "iuf" or array.size == 0:
        raise DataError(
            f"an image must be a picture or a regular array of numbers, "
            f"but got {type(value).__name__}"
        )
    return array


def _channels_first(array: Array, channels: int) -> Array:
    """(Y, X) or (Y, X, C) or (C, Y, X) -> (C, Y, X); the wanted C decides where both would fit."""
    known = (channels, 1, 3)
    if array.ndim == 2:
        return array[None]
    if array.ndim == 3:
        first, last = array.shape[0], array.shape[2]
        if first == channels or (first in known and last not in known):
            return array
        if last in known:
            return np.ascontiguousarray(array.transpose(2, 0, 1))
    raise DataError(
        f"an image must be (Y, X), (Y, X, C) or (C, Y, X) with {channels} channels, grey or RGB, "
        f"but got shape {array.shape}"
    )


def _recolour(image: Tensor, channels: int) -> Tensor:
    if image.shape[0] == channels:
        return image
    if image.shape[0] == 1:
        return image.expand(channels, -1, -1)
    if image.shape[0] == 3 and channels == 1:
        return F.rgb_to_grayscale(image)  # type: ignore[no-any-return]
    raise DataError(f"the model takes {channels} channels, but got an image of {image.shape[0]}")
