"""Folders of pictures: splits by their names, and what is not used is said."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from paretopath.data import load_data
from paretopath.errors import DataError
from tests.pipeline.data.pictures import COLOURS, data, labels_of, picture


def write(root: Path, *names: str, number: int = 10) -> Path:
    """Pictures in folders; ``{}`` in a name stands for a colour, the end for the files' names."""
    for name in names:
        for colour in COLOURS:
            for index in range(number):
                file = root / f"{name.format(colour)}{index}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                picture(colour).save(file)
    return root


def sizes(folder: Path) -> dict[str, int]:
    splits = load_data(data(source="imagefolder", data_dir=str(folder)), input_shape=(3, 8, 8))
    assert splits.class_names == ("blue", "green", "red")
    return {name: sum(found.values()) for name, found in labels_of(splits).items()}


@pytest.mark.parametrize("test", ["test", "Test", "EVAL"])
def test_folders_of_splits_are_known_in_any_case(test: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "a[1]", "Train/{}/", f"{test}/{{}}/")
    assert sizes(folder) == {"train": 26, "validation": 4, "test": 30}


@pytest.mark.parametrize("word", ["{}/test_", "{}/a-val-", "{}/eval "])
def test_no_other_name_makes_a_split(word: str, tmp_path: Path) -> None:
    """The words of splits in files' names; `datasets` alone would put these into two splits."""
    folder = write(tmp_path / "pictures", f"train/{word}", "test/{}/")
    assert sizes(folder)["test"] == 30 and sizes(folder)["train"] == 26


def test_a_class_may_be_called_like_a_split(tmp_path: Path) -> None:
    folder = write(tmp_path / "pictures", "train/{}/")
    (folder / "train" / "red").rename(folder / "train" / "test")
    config = data(source="imagefolder", data_dir=str(folder))
    splits = load_data(config, input_shape=(3, 8, 8))
    assert splits.class_names == ("blue", "green", "test")
    assert all(len(found) == 3 for found in labels_of(splits).values())


def test_pictures_that_are_in_no_split_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write(tmp_path / "pictures", "train/{}/", "holdout/{}/")
    (folder / "train" / "red" / "a.heic").write_bytes(b"")
    (folder / "train" / "red" / "notes.txt").write_text("")
    (folder / "train" / "red" / ".DS_Store").write_bytes(b"")
    assert sum(sizes(folder).values()) == 30
    assert "30 pictures in" in caplog.text and "in none of its splits (train)" in caplog.text
    assert "1 file in" in caplog.text and "no pictures that can be read: .heic" in caplog.text


def test_a_class_from_several_folders_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert sizes(write(tmp_path / "pictures", "2025/{}/", "2026/{}/")) == {
        "train": 36,
        "validation": 9,
        "test": 15,
    }
    assert "class 'blue' of train is read from 2 folders (2025/blue, 2026/blue)" in caplog.text


def test_a_part_needs_images_of_its_own(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    def load(**splits: str) -> None:
        config = data(source="imagefolder", data_dir=str(folder), splits=splits)
        load_data(config, input_shape=(3, 8, 8))

    with pytest.raises(DataError, match=r"splits\.validation must have images of its own.*'train'"):
        load(validation="train")
    load(test="validation")
    assert "test and validation are both the split 'validation'" in caplog.text


def test_classes_of_the_model_that_no_image_has_are_said(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    load_data(
        data(source="imagefolder", data_dir=str(folder)), input_shape=(3, 8, 8), num_classes=5
    )
    assert "no image is of class '3', '4', of the 5 that the model tells apart" in caplog.text


def test_files_that_two_parts_name_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "{}")
    rows = [f"{colour}{index}.png,{colour}" for colour in COLOURS for index in range(10)]
    for name, some in (("train", rows), ("test", rows[::6])):
        (tmp_path / f"{name}.csv").write_text("\n".join(["image,label", *some]) + "\n")
    files = {name: str(tmp_path / f"{name}.csv") for name in ("train", "test")}
    load_data(data(source="csv", data_files=files), input_shape=(3, 8, 8))
    assert "of test are in train too, such as" in caplog.text


@pytest.mark.parametrize(("white", "dark"), [(4095, True), (65535, False)])
def test_images_that_are_nearly_black_are_said(
    white: int, dark: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for index in range(12):
        (tmp_path / "ab"[index % 2]).mkdir(exist_ok=True)
        pixels = np.linspace(0, white, 64).reshape(8, 8).astype(np.uint16)
        Image.fromarray(pixels).save(tmp_path / "ab"[index % 2] / f"{index}.png")
    config = data(source="imagefolder", data_dir=str(tmp_path))
    load_data(config, input_shape=(1, 8, 8))
    assert ("nearly black, with 6.2 % of white at most" in caplog.text) == dark
    caplog.clear()
    known = config.model_copy(update={"max_value": float(white)})
    load_data(known, input_shape=(1, 8, 8))
    assert "nearly black" not in caplog.text


def test_splits_of_a_source_that_no_part_uses_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "{}")
    rows = [f"{colour}{index}.png,{colour}" for colour in COLOURS for index in range(10)]
    for name, some in (("train", rows[::2]), ("valid", rows[1::2])):
        (tmp_path / f"{name}.csv").write_text("\n".join(["image,label", *some]) + "\n")
    files = {"train": str(tmp_path / "train.csv"), "val": str(tmp_path / "valid.csv")}
    load_data(data(source="csv", data_files=files), input_shape=(3, 8, 8))
    assert "no part uses the source's 'val': see data.splits" in caplog.text
