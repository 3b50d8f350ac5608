"""Where images and labels come from: scikit-learn's digits, or what `datasets` can load."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from glob import glob
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from paretopath.data.images import to_tensor
from paretopath.data.splits import Examples
from paretopath.errors import DataError, nearest
from paretopath.recipe.data import DIGITS, FROM_DISK, LOCAL_SOURCES, Data
from paretopath.recipe.section import is_url

# Seconds after which an unanswering hub counts as out of reach.
HUB_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Source:
    """A data set as it comes.

    Attributes:
        splits: its own splits by name.
        class_names: one a class, in the order of the labels.
    """

    splits: Mapping[str, Examples]
    class_names: tuple[str, ...]


def read_source(config: Data, *, channels: int) -> Source:
    """Opens the data set of a recipe, decoding no image yet.

    Args:
        config: the recipe's section.
        channels: of the images to give.

    Raises:
        DataError: it can't be had or read, or lacks a column.
    """
    if config.source == DIGITS:
        return _digits(channels)
    tables = open_tables(config)
    labels, class_names = _read_labels(tables, config.target)
    splits = {
        name: _TableExamples(table, labels[name], config, channels)
        for name, table in tables.items()
    }
    return Source(splits, class_names)


class _ArrayExamples:
    def __init__(self, images: Tensor, labels: npt.NDArray[np.int64]) -> None:
        self.images = images
        self.labels = labels

    def image(self, index: int) -> Tensor:
        return self.images[index]


def _digits(channels: int) -> Source:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = [to_tensor(image, channels, max_value=16) for image in digits.images]
    names = tuple(str(name) for name in digits.target_names)
    return Source(
        {"train": _ArrayExamples(torch.stack(images), digits.target.astype(np.int64))}, names
    )


class PictureColumn:
    """The pictures of one column of a `datasets.Dataset`, decoded one by one.

    Args:
        table: its rows.
        column: of pictures, of their files' bytes or names, or of arrays.
        folder: where file names start.
    """

    def __init__(self, table: Any, column: str, *, folder: str) -> None:
        self.column = column
        self.table = with_images(table.select_columns([column]), column)
        self.folder = folder

    def __len__(self) -> int:
        return len(self.table)

    def read(self, index: int, convert: Callable[[Any], Tensor]) -> Tensor:
        """What ``convert`` makes of one picture (PIL's, or an array).

        Raises:
            DataError: it can't be read or converted; says which.
        """
        try:
            value = self.table[index][self.column]
            if isinstance(value, str):
                with Image.open(Path(self.folder, value)) as picture:
                    return convert(picture)
            return convert(value)
        except (DataError, OSError) as error:  # OSError: PIL's of a broken picture too
            raise DataError(f"image {index} of column {self.column!r}: {error}") from error


class _TableExamples:
    """Rows of a `datasets.Dataset` with labels."""

    def __init__(
        self, table: Any, labels: npt.NDArray[np.int64], config: Data, channels: int
    ) -> None:
        self.labels = labels
        self.pictures = PictureColumn(table, config.image, folder=files_folder(config))
        self.convert = partial(to_tensor, channels=channels, max_value=config.max_value)

    def image(self, index: int) -> Tensor:
        return self.pictures.read(index, self.convert)


def with_images(table: Any, column: str) -> Any:
    """Bytes of picture files are decoded as pictures, whether the file says so or not."""
    import datasets

    feature = table.features[column]
    is_file = isinstance(feature, dict) and {"bytes", "path"} <= feature.keys()
    is_bytes = isinstance(feature, datasets.Value) and feature.dtype in ("binary", "large_binary")
    return table.cast_column(column, datasets.Image()) if is_file or is_bytes else table


def files_folder(config: Data) -> str:
    """Where file names in a column start: `data_dir`, else the folder of the first data file."""
    if config.data_dir:
        return config.data_dir
    first = next((file for files in (config.data_files or {}).values() for file in files), ".")
    return str(Path(first).parent)


def open_tables(config: Data) -> dict[str, Any]:
    """The splits of a data set as `datasets.Dataset`, by name.

    Raises:
        DataError: it can't be had or read, or lacks the image or target column.
    """
    _check_files(config)
    if config.source not in LOCAL_SOURCES and not Path(config.source).exists():
        _check_hub(config.source)
    import datasets

    files: dict[str, list[str]] | None = None
    if config.data_files is not None:
        files = {name: list(some) for name, some in config.data_files.items()}
    try:
        if config.source == FROM_DISK:
            loaded = datasets.load_from_disk(config.data_dir)
        else:
            loaded = datasets.load_dataset(
                config.source,
                config.config,
                data_dir=config.data_dir,
                data_files=files,
                revision=config.revision,
            )
    # datasets, pyarrow, the hub and the file system raise their own kinds
    except Exception as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise DataError(f"data.source {config.source!r} can't be read: {reason}") from error
    tables = dict(loaded) if isinstance(loaded, dict) else {"train": loaded}
    for name, table in tables.items():
        for field, column in (("image", config.image), ("target", config.target)):
            if column not in table.column_names:
                raise DataError(
                    f"data.{field} must be a column of {config.source!r} ({name}), "
                    f"but got {column!r}; {nearest(column, table.column_names)}"
                )
    return tables


def _check_files(config: Data) -> None:
    if config.source not in LOCAL_SOURCES:
        return
    folder = config.data_dir
    if folder is not None and not is_url(folder) and not Path(folder).is_dir():
        raise DataError(f"data.data_dir must be a folder, but there is none at {folder}")
    for files in (config.data_files or {}).values():
        for file in files:
            if not is_url(file) and not glob(file, recursive=True):
                raise DataError(f"data.data_files must name files, but there is none at {file}")


def _check_hub(name: str) -> None:
    """Asks the hub for a sign of life, once: `datasets` itself retries for minutes."""
    from huggingface_hub import constants, get_session, is_offline_mode

    if is_offline_mode():
        return  # from the cache, or a clear error at once
    try:
        get_session().head(constants.ENDPOINT, timeout=HUB_TIMEOUT_S)
    except Exception as error:  # the session's transport decides on the kinds
        raise DataError(
            f"data.source {name!r} is a data set of the hub, but {constants.ENDPOINT} can't be "
            f"reached (HF_HUB_OFFLINE=1 uses what was downloaded before); "
            f"{nearest(name, LOCAL_SOURCES)}"
        ) from error


def _read_labels(
    tables: Mapping[str, Any], column: str
) -> tuple[dict[str, npt.NDArray[np.int64]], tuple[str, ...]]:
    """Labels by split, and the classes' names.

    Class labels keep their numbers and names; whole numbers are classes as they are; texts are
    numbered in their alphabetical order over all splits.
    """
    values = {name: table.select_columns([column])[:][column] for name, table in tables.items()}
    for name, rows in values.items():
        missing = [index for index, row in enumerate(rows) if row is None]
        if missing:
            raise DataError(
                f"every image needs a label, but row {missing[0]} of split {name!r} has none"
            )
    everything = [row for rows in values.values() for row in rows]
    feature = next(iter(tables.values())).features[column]
    if everything and all(isinstance(row, str) for row in everything):
        names = tuple(sorted(set(everything)))
        numbers = {text: number for number, text in enumerate(names)}
        return {name: _int64(numbers[row] for row in rows) for name, rows in values.items()}, names
    if not all(isinstance(row, int) for row in everything):
        kind = type(next((row for row in everything if not isinstance(row, int)), None)).__name__
        raise DataError(
            f"data.target must hold class labels, whole numbers or texts, "
            f"but {column!r} holds {kind}"
        )
    for name, rows in values.items():
        if rows and min(rows) < 0:
            index = next(i for i, row in enumerate(rows) if row < 0)
            raise DataError(
                f"labels must be at least 0, but row {index} of split {name!r} has {rows[index]}: "
                f"a split without labels can't be scored"
            )
    known = getattr(feature, "names", None) or range(max(everything, default=-1) + 1)
    class_names = tuple(str(name) for name in known)
    return {name: _int64(rows) for name, rows in values.items()}, class_names


def _int64(rows: Iterable[int]) -> npt.NDArray[np.int64]:
    return np.fromiter((int(row) for row in rows), dtype=np.int64)
