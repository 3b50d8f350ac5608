"""Images come in as the recipe's evaluation makes them, or one sentence says why not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from paretopath.deploy.preprocessing import Preprocessing
from paretopath.errors import DataError, InvalidValueError
from paretopath.recipe import Data
from paretopath.recipe.tasks import default_section
from paretopath.tasks.registry import open_data

SHAPE = (3, 8, 12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of colour pictures of several sizes."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for label in ("left", "right"):
        (folder / label).mkdir()
        for i in range(6):
            pixels = rng.integers(0, 256, (20 + i, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{i}.png")
    return folder


@pytest.mark.parametrize(
    "transforms",
    [{}, {"evaluation": [{"name": "resize", "size": 10}, "center_crop"]}],
)
def test_a_picture_becomes_what_evaluation_makes_of_it(
    folder: Path, transforms: dict[str, Any]
) -> None:
    data = Data.model_validate(
        {
            "source": "imagefolder",
            "data_dir": str(folder),
            "mean": [0.4, 0.5, 0.6],
            "std": [0.2],
            "transforms": transforms,
            "workers": 0,
        }
    )
    preprocess = Preprocessing(SHAPE, data)
    split = open_data(data, default_section(), input_shape=SHAPE).test
    pictures = split.examples.pictures  # type: ignore[attr-defined]
    for i, number in enumerate(split.indices):  # type: ignore[attr-defined]
        picture = pictures.read(int(number), lambda picture: picture.copy())
        made = preprocess(picture)
        assert made.shape == (1, *SHAPE)
        torch.testing.assert_close(made[0], split[i][0], rtol=0, atol=0)
        array = np.array(picture)
        for same in (array, torch.from_numpy(array), torch.from_numpy(array).permute(2, 0, 1)):
            torch.testing.assert_close(preprocess(same), made, rtol=0, atol=0)


def test_a_photograph_is_turned_upright_as_data_is() -> None:
    pixels = np.arange(8 * 12 * 3, dtype=np.uint8).reshape(8, 12, 3)
    picture = Image.fromarray(np.rot90(pixels))  # lies on its side, and says so
    picture.getexif()[0x0112] = 6
    preprocess = Preprocessing(SHAPE, Data())
    torch.testing.assert_close(preprocess(picture), preprocess(pixels), rtol=0, atol=0)


def test_what_is_no_such_image_is_refused() -> None:
    preprocess = Preprocessing(SHAPE, Data())
    with pytest.raises(DataError, match=r"with 3 channels.*got shape \(2, 2, 2, 2\)"):
        preprocess(np.zeros((2, 2, 2, 2)))
    with pytest.raises(DataError, match="a picture or a regular array"):
        preprocess("cat.png")
    wide = Data.model_validate({"transforms": {"evaluation": [{"name": "resize", "size": 9}]}})
    with pytest.raises(InvalidValueError, match=r"makes \(3, 9, 18\) .* takes \(3, 8, 12\)"):
        Preprocessing(SHAPE, wide)(np.zeros((10, 20, 3)))
    with pytest.raises(InvalidValueError, match="no section data"):
        Preprocessing(SHAPE, None)(np.zeros((8, 12, 3)))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 3, 8, 12)), "must be a tensor, but got ndarray"),
        (torch.zeros(1, 1, 8, 12), r"shape \(B, 3, 8, 12\), .* got \(1, 1, 8, 12\)"),
        (torch.zeros(1, 3, 16, 24), r"shape \(B, 3, 8, 12\), .* got \(1, 3, 16, 24\)"),
        (torch.zeros(3, 8, 12), r"shape \(B, 3, 8, 12\), .* got \(3, 8, 12\)"),
        (torch.zeros(0, 3, 8, 12), "at least one image, but got none"),
        (torch.zeros(1, 3, 8, 12, dtype=torch.uint8), "must be float32, but got uint8"),
        (torch.zeros(1, 3, 8, 12, dtype=torch.float64), "must be float32, but got float64"),
        (torch.zeros(1, 3, 8, 12, device="meta"), "must be on cpu, .* are on meta"),
    ],
)
def test_a_batch_that_the_model_does_not_take_is_one_sentence(images: Any, message: str) -> None:
    preprocess = Preprocessing(SHAPE, Data.model_validate({"mean": 0.25, "std": [0.5, 1, 0.2]}))
    with pytest.raises(InvalidValueError, match=message) as caught:
        preprocess.check(images, torch.zeros(1))
    takes = r"takes floats of shape (B, 3, 8, 12), scaled to [0, 1], less 0.25, over 0.5, 1, 0.2"
    assert takes in str(caught.value)
    preprocess.check(torch.zeros(2, 3, 8, 12), torch.zeros(1))
