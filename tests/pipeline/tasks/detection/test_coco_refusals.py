"""COCO's annotations that can't be right are refused by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paretopath.errors import DataError
from tests.pipeline.tasks.detection.coco_files import (
    Content,
    change_annotation,
    config,
    content,
    write,
)
from tests.pipeline.tasks.detection.opening import opened


def drop(section: str, key: str) -> Callable[[Content], None]:
    def change(found: Content) -> None:
        del found[section][1][key]

    return change


def repeat(section: str) -> Callable[[Content], None]:
    def change(found: Content) -> None:
        found[section][1]["id"] = found[section][0]["id"]

    return change


def each_box(box: Callable[[list[float]], list[float]]) -> Callable[[Content], None]:
    def change(found: Content) -> None:
        for annotation in found["annotations"]:
            annotation["bbox"] = box(annotation["bbox"])

    return change


def each_image(**values: Any) -> Callable[[Content], None]:
    def change(found: Content) -> None:
        for image in found["images"]:
            image.update(values)

    return change


BAD: dict[str, tuple[Callable[[Content], Any], str]] = {
    "results in place of annotations": (
        lambda found: found["annotations"],
        "must be an object with images, annotations and categories, but .* is a list, as results",
    ),
    "no categories": (lambda found: found.pop("categories") and None, "has no 'categories'"),
    "an annotation that is no object": (
        lambda found: found["annotations"].append(5),
        "annotations must be objects, but number 12 in .* is 5",
    ),
    "an image without an id": (
        drop("images", "id"),
        "id must be a whole number, but that of image",
    ),
    "an image without a file": (drop("images", "file_name"), "file_name must be text, but that of"),
    "two images of one id": (
        repeat("images"),
        "the id of an image must be its own, but .* two of 10",
    ),
    "two categories of one id": (repeat("categories"), "the id of a category must be its own"),
    "two categories of one name": (
        lambda found: found["categories"][1].update(name="cat"),
        "categories must differ in name, but .* has two of 'cat'",
    ),
    "an unknown image": (
        change_annotation("image_id", 99),
        "image_id must be the id of an image, but annotation 3 .* has 99; there are 6, from 10",
    ),
    "an unknown category": (
        change_annotation("category_id", 4),
        "category_id must be the id of a category, but annotation 3 .* has 4; there are 3, from 3",
    ),
    "a category by its name": (
        change_annotation("category_id", "cat"),
        "category_id must be a whole number, but that of annotation 3 in .* is 'cat'",
    ),
    "no box": (
        drop("annotations", "bbox"),
        "a box must be four finite numbers, but that of annotation 2 in .* is None",
    ),
    "a box of three numbers": (
        change_annotation("bbox", [1, 2, 3]),
        r"four finite numbers, but that of annotation 3 in .* is \[1, 2, 3\]",
    ),
    "a box of text": (
        change_annotation("bbox", ["1", "2", "x", "4"]),
        "four finite numbers, but that of annotation 3",
    ),
    "a box that is not finite": (
        change_annotation("bbox", [1, 2, float("nan"), 4]),
        "four finite numbers, but that of annotation 3",
    ),
    "a negative width": (
        change_annotation("bbox", [9, 2, -4, 4]),
        r"must not be narrower than 0, but that of annotation 3 in .* is \[9, 2, -4, 4\]",
    ),
    "a crowd flag that is none": (
        change_annotation("iscrowd", 2),
        "iscrowd must be 0 or 1, but that of annotation 3 in .* is 2",
    ),
    "a negative area": (
        change_annotation("area", -3),
        "an area must be at least 0, but that of annotation 3 in .* is -3",
    ),
    "an area that is no number": (
        change_annotation("area", "large"),
        "area must be a finite number, but that of annotation 3 in .* is 'large'",
    ),
    "boxes as shares of the image": (
        each_box(lambda box: [side / 40 for side in box]),
        "boxes must be in pixels, but all .* of train lie between 0 and 1",
    ),
    "boxes of another image size": (
        each_box(lambda box: [10 * side for side in box]),
        "boxes must lie in their images, but .* of .* reach out of them: task.box_format",
    ),
    "no objects at all": (
        lambda found: found["annotations"].clear(),
        "images must have objects in them, but none of the . of train has any",
    ),
    "sizes of other images": (
        each_image(width=41),
        "an image must have the size that its annotations are for, but .* is 40 x 30, and they say "
        "41 x 30",
    ),
    "sizes turned around": (
        each_image(width=30, height=40),
        "and they say 30 x 40: is it turned by its EXIF orientation?",
    ),
    "a height that is no number": (
        each_image(height="30"),
        "height must be a whole number, but that of image 10 in .* is '30'",
    ),
    "images that are not there": (
        each_image(file_name="nowhere.png"),
        "data.data_dir must hold the images of .*, but 'nowhere.png' is neither in",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_annotations_are_refused_in_one_sentence(tmp_path: Path, kind: str) -> None:
    change, says = BAD[kind]
    with pytest.raises(DataError, match=says) as caught:
        opened(write(tmp_path, change))
    text = str(caught.value)
    assert "\n" not in text and len(text.replace(str(tmp_path), "")) < 300


def test_a_file_that_is_no_json_is_refused(tmp_path: Path) -> None:
    data = write(tmp_path)
    (tmp_path / "instances.json").write_text("{")
    with pytest.raises(DataError, match=r"must be JSON, but .*instances\.json: Expecting"):
        opened(data)
    (tmp_path / "instances.json").unlink()
    with pytest.raises(DataError, match="must name files, but there is none at"):
        opened(data)


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    data = write(tmp_path)
    (tmp_path / "2.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"image 2 .*2\.png"):
        opened(data)


def test_splits_of_other_categories_are_refused(tmp_path: Path) -> None:
    write(tmp_path)
    other = content()
    other["categories"][2]["name"] = "horse"
    (tmp_path / "other.json").write_text(json.dumps(other))
    files = {"train": str(tmp_path / "instances.json"), "validation": str(tmp_path / "other.json")}
    with pytest.raises(DataError, match="category 12 is 'cow' in train and 'horse' in validation"):
        opened(config(tmp_path, files))


def test_a_model_that_knows_too_few_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="it tells 2 apart and 'coco' has 3"):
        opened(write(tmp_path), classes=2)


@pytest.mark.parametrize(
    ("transforms", "says"),
    [
        ({"train": ["rand_augment"]}, "rand_augment can't transform boxes"),
        ({"evaluation": ["center_crop"]}, "center_crop would cut objects away"),
    ],
)
def test_transforms_that_lose_boxes_are_refused(
    tmp_path: Path, transforms: dict[str, Any], says: str
) -> None:
    write(tmp_path)
    files = {"train": str(tmp_path / "instances.json")}
    with pytest.raises(DataError, match=says):
        opened(config(tmp_path, files, transforms=transforms))
