"""Images of any size in the model's input, their boxes on their objects."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.pipeline.tasks.detection.coco_files import Content, config, write
from tests.pipeline.tasks.detection.opening import first_of, opened


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
