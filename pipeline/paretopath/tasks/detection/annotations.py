"""The objects of one image as a data set says them: checked, and in one form for all sources."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from paretopath.errors import DataError

BoxFormat = Literal["xywh", "xyxy", "cxcywh"]

LEAST_SIDE = 1.0
"""Pixels of an object that must lie inside its image, either way; as in mmdet and torchvision."""


@dataclass(frozen=True)
class Annotation:
    """The objects of one image, in its own pixels.

    Attributes:
        boxes: (n, 4) float32 x0, y0, x1, y1; they may reach over the image's rim.
        labels: (n,) int64 classes from 0.
        crowd: (n,) bool, boxes around crowds.
        areas: (n,) float32, by which mAP tells small from large: of the object's outline where the
            data set has one, else of its box.
    """

    boxes: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]
    areas: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: npt.NDArray[Any]) -> Self:
        """Some of the objects."""
        return type(self)(
            self.boxes[chosen], self.labels[chosen], self.crowd[chosen], self.areas[chosen]
        )

    def inside(self, height: int, width: int) -> Self:
        """Boxes cut at the image's rim; objects are left out of which nothing is inside."""
        limit = np.array([width, height, width, height], dtype=np.float32)
        cut = type(self)(self.boxes.clip(0, limit), self.labels, self.crowd, self.areas)
        return cut[np.flatnonzero(sides(cut.boxes) >= LEAST_SIDE)]


def sides(boxes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(n,) the shorter side of boxes (n, 4) x0, y0, x1, y1."""
    shorter: npt.NDArray[Any] = (boxes[:, 2:] - boxes[:, :2]).min(1)
    return shorter


def annotation(
    boxes: Sequence[Any],
    labels: Sequence[int],
    crowd: Sequence[Any] | None = None,
    areas: Sequence[Any] | None = None,
    *,
    box_format: BoxFormat = "xywh",
    describe: Callable[[int], str],
) -> Annotation:
    """Checks the objects of an image.

    Args:
        boxes: four numbers an object, in pixels, in ``box_format``.
        labels: classes from 0.
        crowd: 0 or 1 an object; none is a crowd if None.
        areas: pixels an object; those of boxes if None.
        box_format: corner and size, two corners, or centre and size.
        describe: says which object the one of a number is, for errors.

    Raises:
        DataError: a box, a crowd flag or an area can't be one.
    """
    found = _boxes(boxes, describe)
    xyxy = _as_corners(found, box_format)
    size = xyxy[:, 2:] - xyxy[:, :2]
    wrong = np.flatnonzero((size < 0).any(1))
    if len(wrong):
        number = int(wrong[0])
        hint = "" if box_format == "xywh" else f" (task.box_format is {box_format})"
        raise DataError(
            f"a box must not be narrower than 0, but that of {describe(number)} is "
            f"{_shown(boxes[number])}{hint}"
        )
    flags = np.zeros(len(found)) if crowd is None else _numbers(crowd, "iscrowd", describe)
    for number in np.flatnonzero(~np.isin(flags, (0, 1))).tolist():
        raise DataError(
            f"iscrowd must be 0 or 1, but that of {describe(number)} is {flags[number]:g}"
        )
    own = size.prod(1) if areas is None else _numbers(areas, "area", describe)
    for number in np.flatnonzero(own < 0).tolist():
        raise DataError(
            f"an area must be at least 0, but that of {describe(number)} is {own[number]:g}"
        )
    return Annotation(
        xyxy.astype(np.float32),
        np.asarray(labels, dtype=np.int64).reshape(-1),
        flags.astype(np.bool_),
        own.astype(np.float32),
    )


def _boxes(boxes: Sequence[Any], describe: Callable[[int], str]) -> npt.NDArray[np.float64]:
    try:
        found = np.asarray(boxes, dtype=np.float64).reshape(len(boxes), -1)
    except (TypeError, ValueError):
        found = np.zeros((len(boxes), 0))
    if len(boxes) and found.shape[1] == 4 and np.isfinite(found).all():
        return found
    for number, box in enumerate(boxes):
        if not _is_box(box):
            raise DataError(
                f"a box must be four finite numbers, but that of {describe(number)} is "
                f"{_shown(box)}"
            )
    return found.reshape(0, 4)


def _is_box(box: Any) -> bool:
    if isinstance(box, str):
        return False
    try:
        values = np.asarray(box, dtype=np.float64)
    except (TypeError, ValueError):
        return False
    return values.shape == (4,) and bool(np.isfinite(values).all())


def _numbers(
    values: Sequence[Any], what: str, describe: Callable[[int], str]
) -> npt.NDArray[np.float64]:
    for number, value in enumerate(values):
        if not isinstance(value, int | float) or not np.isfinite(value):
            raise DataError(
                f"{what} must be a finite number, but that of {describe(number)} is {value!r}"
            )
    return np.asarray(values, dtype=np.float64).reshape(-1)


def _as_corners(boxes: npt.NDArray[np.float64], box_format: BoxFormat) -> npt.NDArray[np.float64]:
    first, second = boxes[:, :2], boxes[:, 2:]
    if box_format == "xywh":
        second = first + second
    elif box_format == "cxcywh":
        first, second = first - second / 2, first + second / 2
    return np.concatenate([first, second], 1)


def _shown(box: Any) -> str:
    text = str(box)
    return text if len(text) <= 60 else f"{text[:57]}…"
