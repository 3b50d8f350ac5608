"""How classes are stored in masks."""

from dataclasses import dataclass

import torch
from torch import Tensor

from paretopath.errors import DataError


@dataclass(frozen=True)
class Labels:
    """How classes are stored in masks.

    Inside, a class c is c + 1 and an ignored pixel 0, so that what a transform pads is ignored.

    Attributes:
        num_classes: that the model tells apart.
        ignore_index: the class of ignored pixels, in the masks as stored and as given out.
        skip_zero: whether the stored class 0 is ignored and the others count from 1.
    """

    num_classes: int
    ignore_index: int
    skip_zero: bool = False

    def encode(self, mask: Tensor) -> Tensor:
        """(Y, X) as stored -> (Y, X) int32, from 0 for an ignored pixel to ``num_classes``.

        Raises:
            DataError: a class that the model doesn't know.
        """
        stored = mask.int()
        shifted = stored if self.skip_zero else stored + 1
        encoded = torch.where(stored == self.ignore_index, 0, shifted)
        wrong = (encoded < 0) | (encoded > self.num_classes)
        if wrong.any():
            raise DataError(
                f"classes of a mask must be under {self.num_classes + self.skip_zero} or "
                f"{self.ignore_index} (ignored), but got {int(stored[wrong][0])}"
            )
        return encoded

    def decode(self, encoded: Tensor) -> Tensor:
        """(…) encoded -> int64 classes from 0, ignored pixels ``ignore_index``."""
        classes = encoded.long() - 1
        return torch.where(encoded == 0, self.ignore_index, classes)

    def stored(self, number: int) -> int:
        """How class ``number``, from 0, is stored."""
        return number + self.skip_zero

    @property
    def ignored(self) -> str:
        """What is ignored, as it is stored, for people."""
        return f"0 and {self.ignore_index}" if self.skip_zero else str(self.ignore_index)
