"""A column of objects: read right, or refused by name."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from paretopath.errors import DataError
from paretopath.recipe import Data
from tests.pipeline.tasks.detection.opening import first_of, opened


def table(folder: Path, objects: list[Any], features: Any = None) -> Data:
    """Images of 40 x 30 in a parquet file, with a column of objects."""
    image = Image.fromarray(np.full((30, 40, 3), 90, dtype=np.uint8))
    rows = {"image": [image] * len(objects), "objects": objects}
    schema = {"image": datasets.Image(), "objects": features} if features else None
    built = datasets.Dataset.from_dict(rows, features=datasets.Features(schema) if schema else None)
    built = built.cast_column("image", datasets.Image())
    file = folder / "train.parquet"
    built.to_parquet(file)
    return Data.model_validate(
        {
            "source": "parquet",
            "data_files": {"train": str(file)},
            "target": "objects",
            "splits": {"validation": 0.25, "test": 0.25},
            "workers": 0,
        }
    )


def rows(**fields: Any) -> list[Any]:
    return [fields for _ in range(4)]


def test_a_column_of_objects_is_read_with_the_names_of_its_schema(tmp_path: Path) -> None:
    features = {
        "bbox": datasets.List(datasets.List(datasets.Value("float32"))),
        "category": datasets.List(datasets.ClassLabel(names=["cup", "pan", "pot"])),
    }
    data = table(tmp_path, rows(bbox=[[4, 5, 10, 12], [0, 0, 8, 8]], category=[2, 0]), features)
    splits = opened(data)
    assert splits.class_names == ("cup", "pan", "pot")
    _, objects = first_of(splits)
    assert objects.labels.tolist() == [[2, 0]]
    assert objects.boxes[0, 0].tolist() == [8, 10, 28, 34] and objects.areas[0, 0] == 120


@pytest.mark.parametrize(
    ("box_format", "box"),
    [("xywh", [4, 5, 10, 12]), ("xyxy", [4, 5, 14, 17]), ("cxcywh", [9, 11, 10, 12])],
)
def test_boxes_are_read_as_the_recipe_says_they_are_stored(
    tmp_path: Path, box_format: str, box: list[float]
) -> None:
    data = table(tmp_path, rows(bbox=[box], category=[5]))
    splits = opened(data, box_format=box_format)
    assert splits.class_names == ("5",)
    assert first_of(splits)[1].boxes.tolist() == [[[8, 10, 28, 34]]]


def test_objects_may_be_a_list_of_mappings_with_named_classes(tmp_path: Path) -> None:
    objects = [
        [{"bbox": [4.0, 5.0, 10.0, 12.0], "label": "pan"}],
        [{"bbox": [4.0, 5.0, 10.0, 12.0], "label": "cup"}],
        [],
        [{"bbox": [4.0, 5.0, 10.0, 12.0], "label": "pan"}],
    ]
    splits = opened(table(tmp_path, objects))
    assert splits.class_names == ("cup", "pan")
    assert [first_of(splits, i)[1].labels.tolist() for i in range(4)] == [[[1]], [[0]], [[]], [[1]]]


BAD_COLUMNS: dict[str, tuple[list[Any], str]] = {
    "no boxes": (rows(area=[3], category=[1]), r"must have a box \(bbox or bboxes\), but row 0"),
    "no classes": (rows(bbox=[[1, 2, 3, 4]]), r"must have a class \(category or categories\)"),
    "fewer classes than boxes": (
        rows(bbox=[[1, 2, 3, 4], [1, 2, 3, 4]], category=[1]),
        "row 0 of split 'train' has 2 boxes and 1 of class",
    ),
    "classes that are fractions": (
        rows(bbox=[[1, 2, 3, 4]], category=[1.5]),
        "classes of column 'objects' must be whole numbers or names, but one is 1.5",
    ),
    "a number in place of objects": ([5, 5, 5, 5], "must hold objects .* but row 0 .* is 5"),
    "corners read as sizes": (
        rows(bbox=[[20, 15, 38, 28], [20, 15, 39, 29]], category=[1, 1]),
        "reach out of them: task.box_format says how they are stored",
    ),
}


@pytest.mark.parametrize("kind", BAD_COLUMNS)
def test_bad_columns_are_refused_in_one_sentence(tmp_path: Path, kind: str) -> None:
    objects, says = BAD_COLUMNS[kind]
    with pytest.raises(DataError, match=says) as caught:
        opened(table(tmp_path, objects))
    assert "\n" not in str(caught.value)


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    data = table(tmp_path, rows(bbox=[[1, 2, 3, 4]], category=[1]))
    with pytest.raises(DataError, match=r"data.target must be a column .* 'object'; .*'objects'"):
        opened(data.model_copy(update={"target": "object"}))
