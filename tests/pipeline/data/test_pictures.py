"""Pictures: one decoding for every source, upright, whatever the file holds them in."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from paretopath.data import load_data
from paretopath.errors import DataError
from paretopath.recipe import Data


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def data(**fields: Any) -> Data:
    return Data.model_validate(fields)


def sources_of(folder: Path, name: str) -> list[Data]:
    """One picture, twice in each of two classes, as every kind of source holds it."""
    content = (folder / name).read_bytes()
    for label in ("a", "b"):
        for index in range(4):
            (folder / "tree" / label).mkdir(parents=True, exist_ok=True)
            (folder / "tree" / label / f"{index}{Path(name).suffix}").write_bytes(content)
    labels = ["a", "b"] * 4
    csv = folder / "list.csv"
    csv.write_text("image,label\n" + "".join(f"{name},{label}\n" for label in labels))
    raw = datasets.Dataset.from_dict({"image": [content] * 8, "label": labels})
    raw.to_parquet(folder / "bytes.parquet")
    files = [{"bytes": content, "path": name}] * 8
    pictures = datasets.Dataset.from_dict(
        {"image": files, "label": labels},
        features=datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")}),
    )
    pictures.save_to_disk(folder / "saved")
    return [
        data(source="imagefolder", data_dir=str(folder / "tree")),
        data(source="csv", data_files=str(csv)),
        data(source="parquet", data_files=str(folder / "bytes.parquet")),
        data(source="load_from_disk", data_dir=str(folder / "saved")),
    ]


def test_a_photograph_comes_upright_from_every_source(tmp_path: Path) -> None:
    lying = np.zeros((8, 16, 3), np.uint8)
    lying[:, :8] = 255  # bright on the left; turned by a quarter, bright at the top
    exif = Image.Exif()
    exif[274] = 6  # orientation: the camera was turned
    Image.fromarray(lying).save(tmp_path / "photo.png", exif=exif)
    for config in sources_of(tmp_path, "photo.png"):
        splits = load_data(config, input_shape=(3, 16, 8))
        image = splits.test[0][0]
        assert image[:, :8].min() == 1 and image[:, 8:].max() == -1, config.source


GREY = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def coloured() -> Image.Image:
    return Image.fromarray(np.stack([GREY, 255 - GREY, GREY // 2], -1))


def palette() -> Image.Image:
    return coloured().convert("P", palette=Image.Palette.ADAPTIVE, colors=64)


@pytest.mark.parametrize(
    ("name", "image", "expected"),
    [
        ("16bit.png", Image.fromarray(GREY.astype(np.uint16) * 257), GREY / 255),
        ("cmyk.tiff", coloured().convert("CMYK"), coloured()),
        ("rgba.png", Image.merge("RGBA", [*coloured().split(), Image.fromarray(GREY)]), coloured()),
        ("palette.png", palette(), palette().convert("RGB")),
        ("1bit.png", Image.fromarray(GREY).convert("1", dither=0), (GREY > 127) * 1.0),
        ("float.tiff", Image.fromarray((GREY / 255).astype(np.float32)), GREY / 255),
        ("grey_alpha.png", Image.fromarray(np.stack([GREY, GREY], -1), "LA"), GREY / 255),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_pictures_of_every_kind_come_out_alike_from_every_source(
    tmp_path: Path, name: str, image: Image.Image, expected: Any
) -> None:
    image.save(tmp_path / name)
    array = np.asarray(expected, dtype=np.float64)
    if isinstance(expected, Image.Image):
        array = array / 255
    wanted = torch.from_numpy(array if array.ndim == 3 else np.stack([array] * 3, -1)).float()
    for config in sources_of(tmp_path, name):
        splits = load_data(config, input_shape=(3, 8, 8))
        got = splits.test[0][0].movedim(0, -1) * 0.5 + 0.5
        torch.testing.assert_close(got, wanted, atol=2e-3, rtol=0, msg=config.source)


def test_a_picture_that_can_not_be_read_is_named_by_row_and_file(tmp_path: Path) -> None:
    coloured().save(tmp_path / "good.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "good.png").read_bytes()[:40])
    for config in sources_of(tmp_path, "cut.png"):
        with pytest.raises(
            DataError, match=r"^image \d of column 'image' in split 'train'"
        ) as told:
            load_data(config, input_shape=(3, 8, 8))
        named = config.source in ("imagefolder", "csv", "load_from_disk")
        assert (".png" in str(told.value)) == named, config.source
