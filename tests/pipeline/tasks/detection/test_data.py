"""Images with objects: read right, or refused by name."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from paretopath.data import DataSplits
from paretopath.data.saying import say
from paretopath.data.scenes import SCENES_WITH_BOXES, scenes
from paretopath.errors import DataError
from paretopath.recipe import Data
from paretopath.tasks.detection.objects import NOTHING, Objects, PaddedImages
from paretopath.tasks.detection.section import DetectionSection
from paretopath.tasks.registry import open_data
from tests.pipeline.tasks.detection.coco_files import Content, config, content, write


@pytest.fixture(autouse=True)
def nothing_said_yet() -> None:
    say.cache_clear()


def opened(
    data: Data, *, size: tuple[int, int] = (60, 80), classes: int = 3, **task: Any
) -> DataSplits:
    section = DetectionSection.model_validate(task)
    return open_data(data, section, input_shape=(3, *size), num_classes=classes)


def first_of(splits: DataSplits, number: int = 0) -> tuple[PaddedImages, Objects]:
    """The example of a number, whichever split it is in."""
    for name in ("train", "validation", "test"):
        part: Any = splits.split(name)  # type: ignore[arg-type]
        found = np.flatnonzero(part.canvases.indices == number)
        if len(found):
            batch: tuple[PaddedImages, Objects] = part.__getitems__([int(found[0])])
            return batch
    raise AssertionError(number)


def change_annotation(key: str, value: Any) -> Callable[[Content], None]:
    def change(found: Content) -> None:
        found["annotations"][2][key] = value

    return change


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


def test_coco_is_read_with_ids_that_have_gaps(tmp_path: Path) -> None:
    splits = opened(write(tmp_path))
    assert splits.class_names == ("cat", "dog", "cow")
    images, objects = first_of(splits, 1)
    assert images.pixels.shape == (1, 3, 60, 80) and images.sizes.tolist() == [[60, 80]]
    assert objects.labels.tolist() == [[0, 1]]
    assert objects.boxes.tolist() == [[[8, 12, 28, 36], [40, 12, 60, 36]]]
    assert objects.areas.tolist() == [[110, 110]]  # the outline's, in pixels of the original
    assert objects.scale.tolist() == [[2, 2]] and objects.original.tolist() == [[30, 40]]


def test_images_lie_beside_the_file_or_in_a_folder_named_as_their_split(tmp_path: Path) -> None:
    data = write(tmp_path)
    moved = tmp_path / "train"
    moved.mkdir()
    for file in tmp_path.glob("*.png"):
        file.rename(moved / file.name)
    assert len(opened(data).train) == 3
    without = data.model_copy(update={"data_dir": None})
    assert len(opened(without).train) == 3


def test_an_image_without_objects_is_kept(tmp_path: Path) -> None:
    def empty(found: Content) -> None:
        found["annotations"] = [a for a in found["annotations"] if a["image_id"] != 11]

    _, objects = first_of(opened(write(tmp_path, empty)), 1)
    assert objects.boxes.shape == (1, 0, 4)


def test_boxes_over_the_rim_are_cut_and_those_outside_left_out(tmp_path: Path) -> None:
    def shift(found: Content) -> None:
        found["annotations"][2]["bbox"] = [-5, 20, 10, 30]
        found["annotations"][3]["bbox"] = [50, 50, 10, 10]

    _, objects = first_of(opened(write(tmp_path, shift)), 1)
    assert objects.boxes.tolist() == [[[0, 40, 10, 60]]]


def test_crowds_teach_nothing_and_are_kept_for_scoring(tmp_path: Path) -> None:
    _, objects = first_of(opened(write(tmp_path, change_annotation("iscrowd", 1))), 1)
    assert objects.crowd.tolist() == [[True, False]]
    boxes, labels = objects.of_image(0)
    assert labels.tolist() == [1] and boxes.tolist() == [[40, 12, 60, 36]]


def test_sizes_that_the_file_leaves_out_are_taken_from_the_images(tmp_path: Path) -> None:
    def forget(found: Content) -> None:
        for image in found["images"]:
            del image["width"], image["height"]

    _, objects = first_of(opened(write(tmp_path, forget)))
    assert objects.original.tolist() == [[30, 40]]


def test_what_is_absent_or_outside_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def rare(found: Content) -> None:
        found["categories"].append({"id": 20, "name": "yak"})
        found["annotations"][0]["bbox"] = [45, 5, 3, 3]

    with caplog.at_level(logging.WARNING):
        opened(write(tmp_path, rare), classes=4)
    assert "no object of class 'cow', 'yak' in train: nothing can be learned of it" in caplog.text
    assert "have no pixel inside their image: they are left out" in caplog.text


def test_images_of_several_sizes_keep_their_proportions_and_are_padded(tmp_path: Path) -> None:
    def tall(found: Content) -> None:
        found["images"][0].update(width=20, height=40)
        found["annotations"][:2] = [{**found["annotations"][0], "bbox": [5, 10, 10, 20]}]
        Image.fromarray(np.full((40, 20, 3), 200, dtype=np.uint8)).save(tmp_path / "0.png")

    data = write(tmp_path, tall).model_copy(update={"mean": (0.2,), "std": (1.0,)})
    splits = opened(data)
    images, objects = first_of(splits)
    assert images.sizes.tolist() == [[60, 30]] and objects.scale.tolist() == [[1.5, 1.5]]
    assert objects.boxes.tolist() == [[[7.5, 15, 22.5, 45]]]
    assert torch.equal(images.pixels[0, :, :, 30:], torch.zeros(3, 60, 50))
    assert images.pixels[0, :, :, :30] == pytest.approx(200 / 255 - 0.2, abs=1e-5)
    assert images.padding.sum() == 60 * 50 and not images.padding[0, 0, 29]


def test_only_training_images_carry_their_objects(tmp_path: Path) -> None:
    splits = opened(write(tmp_path))
    carried = {}
    for name in ("train", "calibration", "validation", "test"):
        images, objects = next(iter(splits.loader(name)))  # type: ignore[arg-type]
        carried[name] = images.targets is not None
        assert len(objects) == len(images)
    assert carried == {"train": True, "calibration": False, "validation": False, "test": False}


def test_augmented_boxes_stay_on_their_objects(tmp_path: Path) -> None:
    """A white object on a dark ground lies where its box is, however images are augmented."""
    pixels = np.zeros((32, 48, 3), dtype=np.uint8)
    pixels[8:18, 30:40] = 255
    names = [f"{number}.png" for number in range(16)]
    for name in names:
        Image.fromarray(pixels).save(tmp_path / name)
    found = {
        "images": [{"id": i, "file_name": name} for i, name in enumerate(names)],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [30, 8, 10, 10]} for i in range(16)
        ],
        "categories": [{"id": 1, "name": "square"}],
    }
    (tmp_path / "train.json").write_text(json.dumps(found))
    data = config(
        tmp_path,
        {"train": str(tmp_path / "train.json")},
        mean=[0.0],
        std=[1.0],
        transforms={
            "train": [
                "random_horizontal_flip",
                "random_vertical_flip",
                {"name": "random_affine", "translate": [0.2, 0.2], "scale": [0.6, 1.2]},
                {"name": "random_resized_crop", "scale": [0.4, 1.0], "size": [48, 48]},
            ]
        },
    )
    torch.manual_seed(0)
    train: Any = opened(data, size=(64, 96), classes=1).train
    seen, places = 0, set()
    for _ in range(4):
        images, objects = train.__getitems__(range(len(train)))
        for image in range(len(images)):
            boxes, _ = objects.of_image(image)
            if len(boxes) == 0:
                assert images.pixels[image].sum() < 3 * 64 * 96 * 0.01  # it was cut away
                continue
            seen += 1
            y, x = (images.pixels[image, 0] > 0.5).nonzero(as_tuple=True)
            around = [x.min(), y.min(), x.max() + 1, y.max() + 1]
            assert boxes[0].tolist() == pytest.approx([float(side) for side in around], abs=2)
            places.add(tuple(boxes[0].int().tolist()))
    assert seen > 20 and len(places) > 15


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


def test_scenes_have_boxes_around_their_digits() -> None:
    parts = scenes(3, SCENES_WITH_BOXES)
    assert {name: len(part) for name, part in parts.items()} == SCENES_WITH_BOXES
    for number in range(10):
        scene = parts["validation"].scene(number)
        x0, y0, x1, y1 = scene.boxes[-1]  # nothing lies over the last one
        ys, xs = np.nonzero(scene.mask[y0:y1, x0:x1].numpy() == scene.digits[-1] + 1)
        assert (ys.min(), ys.max() + 1, xs.min(), xs.max() + 1) == (0, y1 - y0, 0, x1 - x0)


def test_scenes_for_detection_open_without_files() -> None:
    data = Data.model_validate({"source": "digit_scenes", "cache_mb": 0.0})
    splits = opened(data, size=(64, 64), classes=10)
    images, objects = splits.validation.__getitems__([0, 1, 2])
    assert images.pixels.shape == (3, 3, 64, 64)
    assert ((objects.labels != NOTHING).sum(1) >= 3).all()
    assert splits.class_names == tuple("0123456789")
