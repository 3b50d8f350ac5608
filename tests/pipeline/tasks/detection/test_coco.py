"""COCO's annotations: read right."""

import logging
from pathlib import Path

import pytest

from tests.pipeline.tasks.detection.coco_files import Content, change_annotation, write
from tests.pipeline.tasks.detection.opening import first_of, opened


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
