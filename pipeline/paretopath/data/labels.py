"""What is right for each image: from the rows of a column to tensors."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from paretopath.errors import DataError


@dataclass(frozen=True)
class Column:
    """The targets of one split as the source has them.

    Attributes:
        name: the column's.
        rows: one an image.
        class_names: of whole numbers, where the source knows them.
    """

    name: str
    rows: Sequence[Any]
    class_names: Sequence[str] | None = None


@dataclass(frozen=True)
class Targets:
    """The targets of all splits.

    Attributes:
        values: by split, (n, …). Where they are whole numbers, one an image, they are classes, and
            splits are carved out class by class.
        names: of the model's outputs, in their order: classes, labels, quantities.
    """

    values: Mapping[str, Tensor]
    names: tuple[str, ...]


ReadTargets = Callable[[Mapping[str, Column]], Targets]


def class_labels(columns: Mapping[str, Column]) -> Targets:
    """One class an image.

    Class labels keep their numbers and names; whole numbers are classes as they are; texts are
    numbered in their alphabetical order over all splits.

    Args:
        columns: by split.

    Raises:
        DataError: an image without a label, labels of another kind, or only one class.
    """
    for split, column in columns.items():
        missing = [index for index, row in enumerate(column.rows) if row is None]
        if missing:
            raise DataError(
                f"every image needs a label, but row {missing[0]} of split {split!r} has none"
            )
    everything = [row for column in columns.values() for row in column.rows]
    first = next(iter(columns.values()))
    if everything and all(isinstance(row, str) for row in everything):
        names = tuple(sorted(set(everything)))
        numbers = {text: number for number, text in enumerate(names)}
        labels = {
            split: _int64(numbers[row] for row in column.rows) for split, column in columns.items()
        }
    else:
        _check_numbers(columns, first.name)
        known = first.class_names or range(max(everything, default=-1) + 1)
        names = tuple(str(name) for name in known)
        labels = {split: _int64(column.rows) for split, column in columns.items()}
    found = np.unique(np.concatenate(list(labels.values()))).tolist()
    if len(found) < 2:
        only = f": {names[found[0]]!r}" if found else ""
        raise DataError(
            f"data.target must tell at least two classes apart, "
            f"but {first.name!r} holds {len(found)}{only}"
        )
    return Targets({split: torch.from_numpy(rows) for split, rows in labels.items()}, names)


def _check_numbers(columns: Mapping[str, Column], name: str) -> None:
    for split, column in columns.items():
        for index, row in enumerate(column.rows):
            if not isinstance(row, int):
                raise DataError(
                    f"data.target must hold class labels, whole numbers or texts, "
                    f"but {name!r} holds {type(row).__name__}"
                )
            if row < 0:
                raise DataError(
                    f"labels must be at least 0, but row {index} of split {split!r} has {row}: "
                    f"a split without labels can't be scored"
                )


def _int64(rows: Iterable[int]) -> npt.NDArray[np.int64]:
    return np.fromiter((int(row) for row in rows), dtype=np.int64)
