"""Windows that slide over images larger than a model's input, and their outputs put together."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from paretopath.errors import InvalidValueError


@dataclass(frozen=True)
class SlidingWindow:
    """Windows of one size over images; the last ones end at the image's rim.

    Attributes:
        size: (Y, X) of a window.
        stride: (Y, X) from one window to the next, at most its size.
    """

    size: tuple[int, int]
    stride: tuple[int, int]

    def __post_init__(self) -> None:
        if not all(0 < s <= w for s, w in zip(self.stride, self.size, strict=True)):
            raise InvalidValueError(
                f"a stride must be over 0 and at most its window {self.size}, but got {self.stride}"
            )

    def corners(self, height: int, width: int) -> list[tuple[int, int]]:
        """The top left corner of each window, row by row.

        Raises:
            InvalidValueError: the image is smaller than a window.
        """
        if height < self.size[0] or width < self.size[1]:
            raise InvalidValueError(
                f"an image must be at least as large as a window {self.size}, "
                f"but got {(height, width)}"
            )
        starts = [
            [*range(0, length - size, stride), length - size]
            for length, size, stride in zip((height, width), self.size, self.stride, strict=True)
        ]
        return [(y, x) for y in starts[0] for x in starts[1]]

    def cut(self, images: Tensor) -> Tensor:
        """(B, C, Y, X) -> (B * windows, C, y, x), the windows of one image after the other."""
        height, width = self.size
        pieces = [
            images[:, :, y : y + height, x : x + width] for y, x in self.corners(*images.shape[2:])
        ]
        return torch.stack(pieces, dim=1).flatten(0, 1)

    def join(self, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """The outputs of windows as those of images: their mean where windows overlap.

        Args:
            logits: (B * windows, classes, y, x), resized to the windows' size.
            size: (Y, X) of the images.

        Returns:
            (B, classes, Y, X).
        """
        corners = self.corners(*size)
        height, width = self.size
        if logits.shape[-2:] != self.size:
            logits = interpolate(logits, size=self.size, mode="bilinear", align_corners=False)
        pieces = logits.unflatten(0, (-1, len(corners)))
        total = logits.new_zeros(len(pieces), logits.shape[1], *size)
        times = logits.new_zeros(1, 1, *size)
        for i, (y, x) in enumerate(corners):
            total[:, :, y : y + height, x : x + width] += pieces[:, i]
            times[:, :, y : y + height, x : x + width] += 1
        return total / times
