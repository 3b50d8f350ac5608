"""Images come out right: sizes, channels, transforms."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from paretopath.data import load_data
from paretopath.data.images import to_tensor
from paretopath.errors import DataError
from tests.pipeline.data.pictures import data


@pytest.mark.parametrize(
    ("value", "channels", "expected"),
    [
        (Image.new("L", (3, 2), 51), 1, 51 / 255),
        (Image.new("L", (3, 2), 51), 3, 51 / 255),
        (Image.new("RGB", (3, 2), (51, 51, 51)), 1, 51 / 255),
        (Image.new("RGBA", (3, 2), (51, 51, 51, 7)), 3, 51 / 255),
        (Image.new("LA", (3, 2), (51, 7)), 1, 51 / 255),
        (Image.new("P", (3, 2), 0), 3, 0.0),
        (Image.new("1", (3, 2), 1), 1, 1.0),
        (Image.fromarray(np.full((2, 3), 13107, np.uint16)), 1, 0.2),
        (np.full((2, 3), 51, np.uint8), 1, 51 / 255),
        (np.full((2, 3, 3), 51, np.int64), 3, 0.2),
        (np.full((3, 2, 3), 0.2), 3, 0.2),
        (np.full((2, 3, 5), 51, np.uint8), 5, 51 / 255),
        (np.full((2, 3), True), 1, 1.0),
        ([[51, 51, 51], [51, 51, 51]], 1, 0.2),
    ],
)
def test_whatever_holds_an_image_becomes_a_tensor(
    value: Any, channels: int, expected: float
) -> None:
    tensor = to_tensor(value, channels)
    assert tensor.shape == (channels, 2, 3)
    scaled = tensor.float() / (255 if tensor.dtype == torch.uint8 else 1)
    one_step = 1 / 255  # of rounding where grey is made of colours
    torch.testing.assert_close(
        scaled, torch.full((channels, 2, 3), expected), atol=one_step, rtol=0
    )


def test_colours_and_orientation_survive() -> None:
    image = np.zeros((2, 3, 3), np.uint8)
    image[0, 2] = (10, 20, 30)
    pixel = torch.tensor([10.0, 20.0, 30.0])
    assert torch.equal(to_tensor(image, 3)[:, 0, 2].float(), pixel)
    assert torch.equal(to_tensor(Image.fromarray(image), 3)[:, 0, 2].float(), pixel)
    torch.testing.assert_close(to_tensor(image.tolist(), 3)[:, 0, 2] * 255, pixel)


@pytest.mark.parametrize(
    ("value", "channels", "expected"),
    [
        (np.full((2, 3), 16.0), 1, "must be in [0, 1], but are in [16, 16]: data.max_value tells"),
        (np.full((2, 3), 300), 1, "must be in [0, 255], but are in [300, 300]"),
        (np.full((2, 3), np.nan), 1, "must be in [0, 1], but are in [nan, nan]"),
        (
            np.full((2, 3, 4), 1.0),
            5,
            "(C, Y, X) with 5 channels, grey or RGB, but got shape (2, 3, 4)",
        ),
        (np.full((4, 4, 3), 1.0), 5, "the model takes 5 channels, but got an image of 3"),
        ("picture.png", 1, "a picture or a regular array of numbers, but got str"),
        ([[1, 2], [3]], 1, "a picture or a regular array of numbers, but got list"),
        (None, 1, "a picture or a regular array of numbers, but got NoneType"),
    ],
)
def test_what_is_no_image_is_refused(value: Any, channels: int, expected: str) -> None:
    with pytest.raises(DataError, match=re.escape(expected)):
        to_tensor(value, channels)


@pytest.mark.devdata
def test_clothing_from_parquet() -> None:
    if "PARETOPATH_DEV_DATA" not in os.environ:
        pytest.skip("PARETOPATH_DEV_DATA names no folder")
    root = Path(os.environ["PARETOPATH_DEV_DATA"]) / "clothing"
    config = data(
        source="parquet",
        data_files={name: str(root / f"{name}.parquet") for name in ("train", "validation")},
        splits={"validation": 0.1, "test": "validation"},
        cache_mb=64,
    )
    splits = load_data(config, input_shape=(3, 64, 64), num_classes=10)
    assert [len(s) for s in (splits.train, splits.validation, splits.test)] == [2761, 307, 341]
    assert splits.num_classes == 10
    images, labels = next(iter(splits.loader("test", batch_size=64)))
    assert images.shape == (64, 3, 64, 64)
    assert images.std() > 0.1 and images.abs().max() <= 1
    assert torch.equal(labels, splits.test.targets[:64])
