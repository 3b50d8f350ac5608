"""Objects in a column of a `datasets` data set, next to the column of images."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from paretopath.data.images import to_tensor
from paretopath.data.pictures import PictureColumn
from paretopath.data.sources import files_folder, open_tables
from paretopath.errors import DataError, nearest
from paretopath.recipe import Data
from paretopath.tasks.detection.annotations import Annotation, BoxFormat, annotation
from paretopath.tasks.detection.examples import PicturesWithObjects

BOX_FIELDS = ("bbox", "bboxes", "boxes", "box")
CLASS_FIELDS = ("category", "categories", "category_id", "label", "labels", "class")
CROWD_FIELDS = ("iscrowd", "is_crowd", "crowd")
AREA_FIELDS = ("area", "areas")
"""What published data sets call the fields of an object."""

Objects = Mapping[str, Sequence[Any]]  # of one image: field -> a value an object


def read_columns(
    config: Data, channels: int, box_format: BoxFormat
) -> tuple[Mapping[str, PicturesWithObjects], tuple[str, ...]]:
    """The splits of a data set, and its classes' names.

    Args:
        config: the recipe's section; ``target`` is the column of objects: of each image a mapping
            of lists, or a list of mappings, with a box and a class an object.
        channels: of the images.
        box_format: how boxes are stored.

    Raises:
        DataError: the source can't be read, lacks a column, or objects are not what they should be.
    """
    tables = open_tables(config)
    rows = {
        split: [
            _fields(value, f"row {number} of split {split!r}", config.target)
            for number, value in enumerate(table.select_columns([config.target])[:][config.target])
        ]
        for split, table in tables.items()
    }
    names, numbers = _classes(config, tables, rows)
    found = {}
    for split, table in tables.items():
        pictures = PictureColumn(table, config.image, folder=files_folder(config), split=split)
        found[split] = PicturesWithObjects(
            pictures,
            [
                _annotation(row, numbers, box_format, f"image {number} in split {split!r}")
                for number, row in enumerate(rows[split])
            ],
            [None] * len(table),
            partial(to_tensor, channels=channels, max_value=config.max_value),
        )
    return found, names


def _fields(value: Any, who: str, column: str) -> Objects:
    """Box, class, crowd and area of the objects of one image, under these names."""
    if value is None:
        value = {}
    if isinstance(value, list):  # a mapping an object
        if not all(isinstance(one, dict) for one in value):
            raise DataError(f"column {column!r} must hold objects, but {who} is {value!r:.60}")
        keys = dict.fromkeys(key for one in value for key in one)
        value = {key: [one.get(key) for one in value] for key in keys}
    if not isinstance(value, dict):
        raise DataError(
            f"column {column!r} must hold objects (their boxes and classes), but {who} is "
            f"{value!r:.60}"
        )
    found = {}
    for name, known in (("box", BOX_FIELDS), ("class", CLASS_FIELDS)):
        key = next((key for key in known if key in value), None)
        if key is None and any(len(rest or ()) for rest in value.values()):
            raise DataError(
                f"objects must have a {name} ({' or '.join(known[:2])}), but {who} has "
                f"{', '.join(value)}; {nearest(known[0], value)}"
            )
        found[name] = list(value[key] or ()) if key is not None else []
    for name, optional in (("crowd", CROWD_FIELDS), ("area", AREA_FIELDS)):
        key = next((key for key in optional if value.get(key) is not None), None)
        if key is not None:
            found[name] = list(value[key])
    for name, values in found.items():
        if len(values) != len(found["box"]):
            raise DataError(
                f"each object must have a box and a class, but {who} has {len(found['box'])} boxes "
                f"and {len(values)} of {name}"
            )
    return found


def _classes(
    config: Data, tables: Mapping[str, Any], rows: Mapping[str, Sequence[Objects]]
) -> tuple[tuple[str, ...], Mapping[Any, int]]:
    """The classes' names, and the number from 0 of each class as it is stored."""
    for table in tables.values():
        names = _class_names(table.features[config.target])
        if names:
            return tuple(names), {number: number for number in range(len(names))}
    stored = {value for some in rows.values() for row in some for value in row["class"]}
    for kind in (int, str):
        if all(isinstance(value, kind) and not isinstance(value, bool) for value in stored):
            ordered = sorted(stored)
            numbers = {value: number for number, value in enumerate(ordered)}
            return tuple(str(value) for value in ordered), numbers
    wrong = next(value for value in stored if not isinstance(value, int | str))
    raise DataError(
        f"classes of column {config.target!r} must be whole numbers or names, but one is {wrong!r}"
    )


def _class_names(feature: Any) -> list[str] | None:
    """The names that a column's schema has for classes, however deep it keeps them."""
    inner = getattr(feature, "feature", None)
    if isinstance(feature, list):
        inner = feature[0]
    if isinstance(feature, dict):
        key = next((key for key in CLASS_FIELDS if key in feature), None)
        inner = feature[key] if key is not None else None
    if inner is not None:
        return _class_names(inner)
    names: list[str] | None = getattr(feature, "names", None)
    return names


def _annotation(
    row: Objects, numbers: Mapping[Any, int], box_format: BoxFormat, who: str
) -> Annotation:
    for value in row["class"]:
        if value not in numbers:
            raise DataError(
                f"a class must be one of the {len(numbers)} that the column names, "
                f"but {who} has {value!r}"
            )
    return annotation(
        row["box"],
        [numbers[value] for value in row["class"]],
        row.get("crowd"),
        row.get("area"),
        box_format=box_format,
        describe=lambda number: f"object {number} of {who}",
    )
