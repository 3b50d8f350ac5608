"""Whatever holds an image, as a tensor of the channels that a model takes."""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from pipeline.errors import DataError

# A rounding of a scaled value may leave [0, 1] by this much.
_SLACK = 1e-3


def to_tensor(value: Any, channels: int, *, max_value: float | None = None) -> Tensor:
    """One image (C, Y, X): uint8 as stored, or float32 in [0, 1] where it has more than 8 bits.

    Args:
        value: a PIL image, or anything that NumPy makes an array of: (Y, X), (Y, X, C) or (C, Y, X).
        channels: the C of the result. Grey and RGB are converted into each other; an alpha channel is dropped.
        max_value: the value that means white; by type if None: 255 for integers, 65535 for PIL's and NumPy's
            16 bit, 1 for floats.

    Raises:
        DataError: not an image, another number of channels, or values out of [0, max_value].
    """
    array = _pil_array(value, channels) if isinstance(value, Image.Image) else _array(value)
    tensor = torch.from_numpy(_channels_first(array, channels))
    if tensor.dtype == torch.uint8 and max_value in (None, 255):
        return _recolour(tensor, channels)
    white = max_value or {np.dtype(np.uint16): 65535.0}.get(
        array.dtype, 255.0 if array.dtype.kind in "iu" else 1.0
    )
    scaled = tensor.to(torch.float32) / white
    least, most = float(scaled.min()) * white, float(scaled.max()) * white
    if not (least >= -_SLACK * white and most <= (1 + _SLACK) * white):
        raise DataError(
            f"an image's values must be in [0, {white:g}], but it has {least:g} to {most:g}: "
            f"data.max_value says which value means white"
        )
    return _recolour(scaled, channels)


def _pil_array(image: Image.Image, channels: int) -> np.ndarray[Any, Any]:
    if image.mode.startswith("I;16"):
        return np.array(image, dtype=np.uint16)
    if image.mode in ("I", "F"):
        return np.array(image)
    if image.mode not in ("L", "RGB"):
        image = image.convert("L" if channels == 1 and image.mode in ("1", "LA") else "RGB")
    return np.array(image)


def _array(value: Any) -> np.ndarray[Any, Any]:
    try:
        array = np.array(value)
    except ValueError as error:  # rows of different lengths
        raise DataError(
            f"an image must be a picture or a regular array, but got {type(value).__name__}"
        ) from error
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "iuf" or array.size == 0:
        raise DataError(
            f"an image must be a picture or an array of numbers, but got {type(value).__name__}"
        )
    return array


def _channels_first(array: np.ndarray[Any, Any], channels: int) -> np.ndarray[Any, Any]:
    known = {channels, 1, 3}
    if array.ndim == 2:
        return array[None]
    if (
        array.ndim == 3
        and array.shape[0] in known
        and (array.shape[0] == channels or array.shape[2] not in known)
    ):
        return array
    if array.ndim == 3 and array.shape[2] in known:
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
    if channels == 1:
        return F.rgb_to_grayscale(image)  # type: ignore[no-any-return]
    raise DataError(
        f"the model takes images of {channels} channels, but got one of {image.shape[0]}"
    )
