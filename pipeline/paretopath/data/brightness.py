"""Whether images use the range of values that they are scaled by."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from paretopath.data.saying import say
from paretopath.data.splits import Indices

LOOKED_AT = 16
"""Images, evenly spread."""

DARK = 1 / 8
"""Share of white that none of them reaches: as with 12 bits in a file of 16."""


def check_brightness(image: Callable[[int], Tensor], indices: Indices) -> None:
    """Says where images are nearly black, because another value than is thought means white.

    Args:
        image: gives one by its index, uint8 or float32 in [0, 1].
        indices: of the images.
    """
    number = min(LOOKED_AT, len(indices))
    brightest = 0.0
    for index in indices[(np.arange(number) * len(indices)) // number].tolist():
        pixels = image(index)
        scale = 255.0 if pixels.dtype == torch.uint8 else 1.0
        brightest = max(brightest, float(pixels.max()) / scale)
        if brightest >= DARK:
            return
    say(
        f"{number} images of train are nearly black, with {100 * brightest:.1f} % of white at "
        f"most: data.max_value tells which value means white (4095 for 12 bits)"
    )
