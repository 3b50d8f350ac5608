"""Which classes the masks of a data set hold, looked at before anything is trained on them."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from paretopath.data.saying import listed, say
from paretopath.data.splits import Indices
from paretopath.errors import DataError
from paretopath.tasks.segmentation.labels import Labels
from paretopath.tasks.segmentation.masks import MaskExamples

LOOKED_AT = 256
"""Masks of a part that are looked at, spread evenly: a second or two, whatever the data set."""

MOSTLY = 0.99
"""Share of ignored pixels from which masks are refused; scribbles leave about 97 % open."""

WORTH_SAYING = 0.1
"""Share of ignored pixels from which they are mentioned; rims and voids stay below."""


@dataclass(frozen=True)
class Occurrence:
    """What some masks hold.

    Attributes:
        masks: how many were looked at.
        of: how many there are.
        pixels: (1 + classes,) how many pixels are ignored, and of each class.
    """

    masks: int
    of: int
    pixels: npt.NDArray[np.int64]

    @property
    def ignored(self) -> float:
        """The share of ignored pixels."""
        return float(self.pixels[0] / max(1, self.pixels.sum()))

    @property
    def classes(self) -> list[int]:
        """Those that occur."""
        return np.flatnonzero(self.pixels[1:]).tolist()

    @property
    def absent(self) -> list[int]:
        """Those that don't."""
        return np.flatnonzero(self.pixels[1:] == 0).tolist()

    def __str__(self) -> str:
        return (
            f"{self.masks} masks" if self.masks == self.of else f"{self.masks} of {self.of} masks"
        )


def check_occurrence(
    parts: Mapping[str, tuple[MaskExamples, Indices]], labels: Labels, *, threads: int
) -> None:
    """Says which classes train and validation lack and how much is ignored.

    Args:
        parts: the examples of each part, and which of them belong to it.
        labels: how classes are stored.
        threads: that read masks.

    Raises:
        DataError: nearly everything is ignored, train holds fewer than two classes, or a mask can't
            be read or holds a class that the model doesn't know.
    """
    for name in ("train", "validation"):
        examples, indices = parts[name]
        found = count_classes(examples, indices, labels, threads=threads)
        _refuse(name, found, labels)
        if found.absent:
            classes = listed([str(labels.stored(number)) for number in found.absent])
            so = (
                "nothing can be learned of it"
                if name == "train"
                else "mean IoU counts it only where it is predicted"
            )
            say(f"no pixel of class {classes} in {found} of {name}: {so}")
        if found.ignored >= WORTH_SAYING:
            say(_ignored(name, found, labels))


def count_classes(
    examples: MaskExamples, indices: Indices, labels: Labels, *, threads: int = 1
) -> Occurrence:
    """Looks at masks of a part, evenly spread over it, at most :data:`LOOKED_AT`."""
    number = min(LOOKED_AT, len(indices))
    chosen = indices[(np.arange(number) * len(indices)) // number]

    def pixels(index: int) -> npt.NDArray[np.int64]:
        try:
            encoded = labels.encode(examples.mask(index))
        except DataError as error:
            raise DataError(f"{examples.describe(index)}: {error}") from error
        return np.bincount(encoded.flatten().numpy(), minlength=labels.num_classes + 1)

    with ThreadPoolExecutor(threads) as pool:
        total = sum(pool.map(pixels, chosen.tolist()), np.zeros(labels.num_classes + 1, np.int64))
    return Occurrence(number, len(indices), total)


def _refuse(name: str, found: Occurrence, labels: Labels) -> None:
    if found.ignored >= MOSTLY:
        fields = "task.ignore_index" + (" and task.skip_zero" if labels.skip_zero else "")
        raise DataError(
            f"masks must hold classes, but {_ignored(name, found, labels)}: see {fields}"
        )
    if name == "train" and len(found.classes) < 2 <= labels.num_classes:
        only = labels.stored(found.classes[0])
        hint = f"{_ignored(name, found, labels)}: a class must not be stored as what is ignored"
        raise DataError(
            f"masks must hold at least two classes, but {found} of {name} hold only {only}"
            + (f"; {hint}" if found.ignored else "")
        )


def _ignored(name: str, found: Occurrence, labels: Labels) -> str:
    share = f"{100 * found.ignored:.1f} % of the pixels in {found} of {name}"
    return f"{share} are ignored ({labels.ignored})"
