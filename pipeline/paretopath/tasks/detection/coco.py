"""COCO's JSON: images, annotations and categories in one file a split.

The format is that of Lin et al., "Microsoft COCO" (arXiv 1405.0312; cocodataset.org, "Data
format"): boxes are x, y, width, height in pixels, ``iscrowd`` marks boxes around crowds, and ids of
categories may have gaps: classes are numbered from 0 in the order of their ids.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from paretopath.data.images import to_tensor
from paretopath.data.pictures import PictureColumn
from paretopath.errors import DataError, nearest
from paretopath.recipe import Data
from paretopath.tasks.detection.annotations import Annotation, annotation
from paretopath.tasks.detection.examples import PicturesWithObjects

SECTIONS = ("images", "annotations", "categories")


@dataclass(frozen=True)
class _File:
    """What one file holds.

    Attributes:
        names: files of images, as the file has them.
        sizes: height and width of each image, None where it has none.
        annotations: of each image.
        categories: (id, name) by rising id.
    """

    names: Sequence[str]
    sizes: Sequence[tuple[int, int] | None]
    annotations: Sequence[Annotation]
    categories: tuple[tuple[int, str], ...]


def read_coco(
    config: Data, channels: int
) -> tuple[Mapping[str, PicturesWithObjects], tuple[str, ...]]:
    """The splits of a data set, and its classes' names.

    Args:
        config: the recipe's section: ``data_files`` are the JSON files by split, ``data_dir`` the
            folder of images, or of a folder of images for each split; without it images lie beside
            the first file.
        channels: of the images.

    Raises:
        DataError: a file can't be read, is not what it should be, or is not of the same classes.
    """
    files = config.data_files or {}
    read = {}
    for split, some in files.items():
        if len(some) != 1:
            raise DataError(
                f"data.data_files of source coco must be one JSON file a split, but {split!r} has "
                f"{len(some)}"
            )
        read[split] = _read(some[0])
    first, *others = read
    for other in others:
        if read[other].categories != read[first].categories:
            raise DataError(
                f"all splits must have the same categories, but {_difference(read, first, other)}"
            )
    found = {}
    for split, file in read.items():
        folder = _folder(config, split, files[split][0], file.names)
        found[split] = PicturesWithObjects(
            _pictures(file.names, folder, split),
            file.annotations,
            file.sizes,
            partial(to_tensor, channels=channels, max_value=config.max_value),
        )
    return found, tuple(name for _, name in read[first].categories)


def _pictures(names: Sequence[str], folder: Path, split: str) -> PictureColumn:
    import datasets

    table = datasets.Dataset.from_dict({"file_name": list(names)})
    return PictureColumn(table, "file_name", folder=str(folder), split=split)


def _folder(config: Data, split: str, file: str, names: Sequence[str]) -> Path:
    """Where the images of a split lie."""
    folder = Path(config.data_dir or Path(file).parent)
    if not folder.is_dir():
        raise DataError(f"data.data_dir must be a folder, but there is none at {folder}")
    tried = (folder, folder / split)
    for place in tried:
        if names and (place / names[0]).is_file():
            return place
    if not names:
        return folder
    raise DataError(
        f"data.data_dir must hold the images of {file}, but {names[0]!r} is neither in "
        f"{' nor in '.join(map(str, tried))}"
    )


def _read(file: str) -> _File:
    try:
        content = json.loads(Path(file).read_bytes())
    except OSError as error:
        raise DataError(f"data.data_files must name files, but there is none at {file}") from error
    except ValueError as error:
        raise DataError(
            f"data.data_files of source coco must be JSON, but {file}: {error}"
        ) from error
    if not isinstance(content, dict):
        kind = "a list, as results are" if isinstance(content, list) else type(content).__name__
        raise DataError(
            f"COCO's JSON must be an object with {_all(SECTIONS)}, but {file} is {kind}"
        )
    for section in SECTIONS:
        if not isinstance(content.get(section), list):
            raise DataError(
                f"COCO's JSON must have lists {_all(SECTIONS)}, but {file} has no {section!r}; "
                f"{nearest(section, content)}"
            )
    categories = _by_id(content["categories"], "category", "a category", file)
    for category in categories.values():
        _require(category, "name", str, f"category {category['id']}", file)
    names = [category["name"] for category in categories.values()]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"categories must differ in name, but {file} has two of {name!r}")
    classes = {number: place for place, number in enumerate(sorted(categories))}
    images = _by_id(content["images"], "image", "an image", file)
    for image in images.values():
        _require(image, "file_name", str, f"image {image['id']}", file)
    mine = _grouped(content["annotations"], images, classes, file)
    return _File(
        [image["file_name"] for image in images.values()],
        [_size(image, file) for image in images.values()],
        [_objects(mine[number], classes, file) for number in images],
        tuple((number, categories[number]["name"]) for number in sorted(categories)),
    )


def _objects(
    rows: Sequence[Mapping[str, Any]], classes: Mapping[int, int], file: str
) -> Annotation:
    areas = [row.get("area") for row in rows]
    return annotation(
        [row.get("bbox") for row in rows],
        [classes[row["category_id"]] for row in rows],
        [row.get("iscrowd", 0) for row in rows],
        None if None in areas else areas,
        describe=lambda number: f"annotation {rows[number].get('id', '?')} in {file}",
    )


def _grouped(
    rows: Sequence[Any], images: Mapping[int, Any], classes: Mapping[int, int], file: str
) -> dict[int, list[Mapping[str, Any]]]:
    """The annotations of each image."""
    found: dict[int, list[Mapping[str, Any]]] = {number: [] for number in images}
    for place, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"annotations must be objects, but number {place} in {file} is {row!r}")
        who = f"annotation {row.get('id', f'number {place}')}"
        for key, known, kind in (
            ("image_id", images, "an image"),
            ("category_id", classes, "a category"),
        ):
            value = _require(row, key, int, who, file)
            if value not in known:
                raise DataError(
                    f"{key} must be the id of {kind}, but {who} in {file} has {value}; "
                    f"{_ids(known)}"
                )
        found[row["image_id"]].append(row)
    return found


def _by_id(rows: Sequence[Any], kind: str, one: str, file: str) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for place, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"{one} must be an object, but number {place} in {file} is {row!r}")
        number = _require(row, "id", int, f"{kind} number {place}", file)
        if number in found:
            raise DataError(f"the id of {one} must be its own, but {file} has two of {number}")
        found[number] = row
    return found


def _require(row: Mapping[str, Any], key: str, kind: type, who: str, file: str) -> Any:
    value = row.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        what = {int: "a whole number", str: "text"}[kind]
        raise DataError(f"{key} must be {what}, but that of {who} in {file} is {value!r}")
    return value


def _size(image: Mapping[str, Any], file: str) -> tuple[int, int] | None:
    if not image.get("height") and not image.get("width"):
        return None
    who = f"image {image['id']}"
    return (
        _require(image, "height", int, who, file),
        _require(image, "width", int, who, file),
    )


def _difference(read: Mapping[str, _File], first: str, other: str) -> str:
    ours, theirs = (dict(read[split].categories) for split in (first, other))
    for number in sorted(ours.keys() | theirs.keys()):
        if ours.get(number) != theirs.get(number):
            return (
                f"category {number} is {ours.get(number)!r} in {first} and "
                f"{theirs.get(number)!r} in {other}"
            )
    return "theirs differ"


def _ids(known: Mapping[int, Any]) -> str:
    if not known:
        return "there is none"
    return f"there are {len(known)}, from {min(known)} to {max(known)}"


def _all(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
