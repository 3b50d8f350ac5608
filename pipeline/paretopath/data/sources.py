"""Where images and labels come from: scikit-learn's digits, or what `datasets` can load."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from glob import glob
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paretopath.data.folders import split_patterns
from paretopath.data.images import to_tensor
from paretopath.data.labels import Column, ReadTargets
from paretopath.data.pictures import PictureColumn
from paretopath.data.splits import Examples
from paretopath.errors import DataError, nearest
from paretopath.recipe.data import (
    BUILT_IN,
    COCO,
    DIGIT_SCENES,
    DIGITS,
    FOLDER_BUILDERS,
    FROM_DISK,
    LOCAL_SOURCES,
    Data,
)
from paretopath.recipe.section import is_url

# Seconds after which an unanswering hub counts as out of reach.
HUB_TIMEOUT_S = 5.0


@dataclass(frozen=True)
class Source:
    """A data set as it comes.

    Attributes:
        splits: its own splits by name.
        class_names: of the model's outputs, in their order.
    """

    splits: Mapping[str, Examples]
    class_names: tuple[str, ...]


def read_source(config: Data, *, channels: int, read_targets: ReadTargets) -> Source:
    """Opens the data set of a recipe, decoding no image yet.

    Args:
        config: the recipe's section.
        channels: of the images to give.
        read_targets: makes targets of the target column.

    Raises:
        DataError: it can't be had or read, or lacks a column.
    """
    if config.source == DIGITS:
        return _digits(channels, read_targets)
    tables = open_tables(config)
    columns = {name: _column(table, config.target) for name, table in tables.items()}
    targets = read_targets(columns)
    splits = {
        name: _TableExamples(
            PictureColumn(table, config.image, folder=files_folder(config), split=name),
            targets.values[name],
            partial(to_tensor, channels=channels, max_value=config.max_value),
        )
        for name, table in tables.items()
    }
    return Source(splits, targets.names)


def _column(table: Any, name: str) -> Column:
    rows = table.select_columns([name])[:][name]
    return Column(name, rows, getattr(table.features[name], "names", None))


class _ArrayExamples:
    """Images in memory."""

    def __init__(self, images: Tensor, targets: Tensor) -> None:
        self.images = images
        self.targets = targets

    def __len__(self) -> int:
        return len(self.images)

    def image(self, index: int) -> Tensor:
        return self.images[index]

    def describe(self, index: int) -> str:
        return f"image {index}"


def _digits(channels: int, read_targets: ReadTargets) -> Source:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = [to_tensor(image, channels, max_value=16) for image in digits.images]
    names = [str(name) for name in digits.target_names]
    targets = read_targets({"train": Column("label", digits.target.tolist(), names)})
    return Source(
        {"train": _ArrayExamples(torch.stack(images), targets.values["train"])}, targets.names
    )


class _TableExamples:
    """Rows of a `datasets.Dataset`."""

    def __init__(
        self, pictures: PictureColumn, targets: Tensor, convert: Callable[[Any], Tensor]
    ) -> None:
        self.pictures = pictures
        self.targets = targets
        self.convert = convert

    @property
    def files(self) -> Sequence[str]:
        return self.pictures.files

    def __len__(self) -> int:
        return len(self.targets)

    def image(self, index: int) -> Tensor:
        return self.pictures.read(index, self.convert)

    def describe(self, index: int) -> str:
        return self.pictures.describe(index)


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
    if config.source in (*BUILT_IN, COCO):
        fit = {DIGITS: "classification", DIGIT_SCENES: "segmentation or detection"}
        raise DataError(
            f"data.source {config.source!r} is for the task "
            f"{fit.get(config.source, 'detection')}: see task.name"
        )
    _check_files(config)
    if config.source not in LOCAL_SOURCES and not Path(config.source).exists():
        _check_hub(config.source)
    import datasets

    files: dict[str, list[str]] | None = None
    if config.data_files is not None:
        files = {name: list(some) for name, some in config.data_files.items()}
    is_local, folder = config.source in LOCAL_SOURCES, config.data_dir
    if config.source in FOLDER_BUILDERS and files is None and folder and not is_url(folder):
        files = split_patterns(Path(folder), by_class=config.target == Data().target)
        folder = None
    try:
        with _without_bars() if is_local else nullcontext():
            if config.source == FROM_DISK:
                loaded = datasets.load_from_disk(config.data_dir)
            else:
                loaded = datasets.load_dataset(
                    config.source,
                    config.config,
                    data_dir=folder,
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
                _explain_missing_label(config, column, tables)
                raise DataError(
                    f"data.{field} must be a column of {config.source!r} ({name}), "
                    f"but got {column!r}; {nearest(column, table.column_names)}"
                )
    return tables


@contextmanager
def _without_bars() -> Iterator[None]:
    """Keeps the bars of `datasets` off the screen: what is local takes no download to watch."""
    import datasets

    shows = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shows:
            datasets.enable_progress_bars()


def _explain_missing_label(config: Data, column: str, tables: Mapping[str, Any]) -> None:
    """Raises DataError where a folder of images gave no labels: `datasets` leaves the column out
    then, and says nothing.
    """
    import datasets

    is_bare = all(table.column_names == [config.image] for table in tables.values())
    if config.source not in FOLDER_BUILDERS or column != "label" or not is_bare:
        return
    files = datasets.Image(decode=False)
    names: set[str] = set()
    for table in tables.values():
        rows = table.cast_column(config.image, files)[:][config.image]
        names |= {Path(row["path"]).parent.name for row in rows}
    found = sorted(names)
    shown = ", ".join(repr(name) for name in found[:5]) + (", …" if len(found) > 5 else "")
    what = f"one ({shown})" if len(found) == 1 else f"{shown}, not all at one depth"
    raise DataError(
        f"data.source {config.source!r} takes an image's class from the name of its folder, and "
        f"needs at least two such folders beside each other in every split, "
        f"but {config.data_dir or 'data.data_files'} has {what}"
    )


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
