"""What is in a folder of images: classes, splits, and the sizes and colours of the pictures."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from PIL import ExifTags, Image

from paretopath.data.parts import DEFAULT_SHARES
from paretopath.data.sources import open_tables
from paretopath.errors import DataError
from paretopath.recipe import Data

LOOKED_AT = 200
"""Images of a split whose headers are read, evenly spread."""

_GREY = ("1", "L", "LA", "I", "F", "I;16")
_TURNED = 5  # from this EXIF orientation on, height and width are exchanged


@dataclass(frozen=True)
class PictureFolder:
    """A folder of images, one folder a class.

    Attributes:
        folder: where it is.
        classes: their names, in the order of the model's outputs.
        splits: images of each of its own splits.
        parts: about how many images train, validation and test get.
        sizes: (Y, X) of the pictures that were looked at.
        grey: how many of these have no colours.
    """

    folder: Path
    classes: tuple[str, ...]
    splits: Mapping[str, int]
    parts: Mapping[str, int]
    sizes: tuple[tuple[int, int], ...]
    grey: int

    @property
    def shorter_side(self) -> int:
        """The median of the pictures' shorter sides, pixels."""
        return round(median(min(size) for size in self.sizes))


def look_at(folder: Path) -> PictureFolder:
    """What is in a folder of images.

    Args:
        folder: folders of classes, in folders of splits (see
            :data:`~paretopath.data.folders.SPLIT_FOLDERS`) or alone.

    Raises:
        DataError: there is no such folder, or no two classes, no images to learn from, or a file
            that is no picture.
    """
    tables = open_tables(Data(source="imagefolder", data_dir=str(folder)))
    if "train" not in tables:
        raise DataError(
            f"{folder} must have images to learn from, but only has {', '.join(tables)}"
        )
    classes = tuple(tables["train"].features["label"].names)
    if len(classes) < 2:
        raise DataError(f"{folder} must have a folder for each of at least two classes")
    headers = [header for table in tables.values() for header in _headers(table)]
    return PictureFolder(
        folder=folder,
        classes=classes,
        splits={name: len(table) for name, table in tables.items()},
        parts=_parts({name: len(table) for name, table in tables.items()}),
        sizes=tuple(size for size, _ in headers),
        grey=sum(mode in _GREY for _, mode in headers),
    )


def _parts(splits: Mapping[str, int]) -> dict[str, int]:
    """Where validation and test are carved out of train, their default shares of it."""
    total = splits["train"]
    carved = {n: round(s * total) for n, s in DEFAULT_SHARES.items() if n not in splits}
    kept = {name: splits[name] for name in DEFAULT_SHARES if name in splits}
    return {"train": total - sum(carved.values()), **carved, **kept}


def _headers(table: Any) -> list[tuple[tuple[int, int], str]]:
    """(Y, X) and mode of some pictures, without decoding them."""
    import datasets

    files = table.cast_column("image", datasets.Image(decode=False))
    step = max(1, len(files) // LOOKED_AT)
    return [_header(Path(files[row]["image"]["path"])) for row in range(0, len(files), step)]


def _header(file: Path) -> tuple[tuple[int, int], str]:
    try:
        with Image.open(file) as picture:
            width, height = picture.size
            turned = picture.getexif().get(ExifTags.Base.Orientation, 1) >= _TURNED
            return ((width, height) if turned else (height, width)), picture.mode
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{file} can't be read as a picture: {error}") from error
