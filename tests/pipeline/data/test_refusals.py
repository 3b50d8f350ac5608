"""What can be wrong with data, each said in one sentence before anything is trained."""

import re
from pathlib import Path
from typing import Any

import datasets
import pytest

from paretopath.data import load_data
from paretopath.errors import DataError
from tests.pipeline.data.pictures import data, picture, png


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"image": "img"}, "data.image must be a column of 'imagefolder' (train), but got 'img'; "),
        (
            {"target": "lable"},
            "data.target must be a column of 'imagefolder' (train), but got 'lab",
        ),
        (
            {"splits": {"train": "tarin"}},
            "data.splits.train must be a split of the source, but got",
        ),
        (
            {"splits": {"test": "tests"}},
            "data.splits.test must be a split of the source, but got 't",
        ),
        (
            {"splits": {"test": 0.001}},
            "every split must have images, but test gets none of the 60 ",
        ),
        (
            {"mean": [0.5, 0.5]},
            "data.mean must have one number, or one for each of 3 channels, but",
        ),
        (
            {"transforms": {"evaluation": [{"name": "resize", "size": 8}]}},
            "images must end up as (3, 8, 8) (C, Y, X), but data.transforms makes image ",
        ),
    ],
)
def test_a_recipe_that_does_not_fit_its_data_says_how(
    folder: Path, fields: dict[str, Any], expected: str
) -> None:
    config = data(source="imagefolder", data_dir=str(folder), workers=0, **fields)
    with pytest.raises(DataError, match=f"^{re.escape(expected)}"):
        list(load_data(config, input_shape=(3, 8, 8)).loader("train"))


def test_more_classes_than_the_model_knows_are_refused() -> None:
    with pytest.raises(DataError, match="it tells 7 apart and 'digits' has 10"):
        load_data(data(), input_shape=(1, 8, 8), num_classes=7)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, 1, -1], "labels must be at least 0, but row 2 of split 'train' has -1"),
        ([0, None, 1], "every image needs a label, but row 1 of split 'train' has none"),
        (
            [0.5, 1.0, 2.0],
            "data.target must hold class labels, whole numbers or texts, but 'label' h",
        ),
        (
            [[0], [1], [2]],
            "data.target must hold class labels, whole numbers or texts, but 'label' h",
        ),
    ],
)
def test_labels_that_are_none_are_refused(tmp_path: Path, labels: Any, expected: str) -> None:
    rows = {"image": [png(picture("red"))] * 3, "label": labels}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "a.parquet")
    config = data(source="parquet", data_files=str(tmp_path / "a.parquet"))
    with pytest.raises(DataError, match=f"^{re.escape(expected)}"):
        load_data(config, input_shape=(3, 8, 8))


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"data\.data_dir must be a folder, but there is none at "):
        load_data(data(source="imagefolder", data_dir=nowhere), input_shape=(3, 8, 8))
    with pytest.raises(DataError, match=r"data\.data_files must name files, but there is none at "):
        load_data(data(source="parquet", data_files=f"{nowhere}/*.parquet"), input_shape=(3, 8, 8))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 but not really")
    config = data(source="parquet", data_files=str(tmp_path / "broken.parquet"))
    with pytest.raises(DataError, match=r"^data\.source 'parquet' can't be read: "):
        load_data(config, input_shape=(3, 8, 8))


def test_a_hub_out_of_reach_is_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    # a port of this machine on which nobody listens
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    expected = r"data\.source 'digit' is a data set of the hub, but .* can't be reached"
    with pytest.raises(DataError, match=expected + r".*did you mean 'digits'\?$"):
        load_data(data(source="digit"), input_shape=(3, 8, 8))


# faults of data, said before anything is trained


def pictures_in(folder: Path, *names: str, count: int = 4) -> Path:
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            picture("red").save(folder / name / f"{index}.png")
    return folder


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["cats"], "has one ('cats')"),
        (["train/cats"], "has one ('cats')"),
        (["cats", "dogs/small"], "has 'cats', 'small', not all at one depth"),
    ],
)
def test_a_folder_of_images_without_classes_says_what_it_has_and_what_is_needed(
    names: list[str], found: str, tmp_path: Path
) -> None:
    folder = pictures_in(tmp_path / "pictures", *names)
    expected = f"needs at least two such folders.*but {re.escape(str(folder))} {re.escape(found)}"
    with pytest.raises(DataError, match=expected):
        load_data(data(source="imagefolder", data_dir=str(folder)), input_shape=(3, 8, 8))


def test_a_column_of_one_class_says_which(tmp_path: Path) -> None:
    pictures_in(tmp_path, "a")
    (tmp_path / "list.csv").write_text("image,label\n" + "a/0.png,cat\n" * 8)
    config = data(source="csv", data_files=str(tmp_path / "list.csv"))
    with pytest.raises(DataError, match="at least two classes apart, but 'label' holds 1: 'cat'"):
        load_data(config, input_shape=(3, 8, 8))


def test_fewer_images_to_learn_from_than_classes_are_refused() -> None:
    config = data(splits={"validation": 0.5, "test": 0.4999})
    with pytest.raises(DataError, match="it gets 1 of 1797 images and there are 10 classes: see "):
        load_data(config, input_shape=(1, 8, 8))


def test_few_images_and_absent_classes_are_said(caplog: pytest.LogCaptureFixture) -> None:
    load_data(data(splits={"validation": 0.002, "test": 0.98}), input_shape=(1, 8, 8))
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith("validation has 4 images: an accuracy on so few has a standard error")
    assert "of up to 25 points" in said[0]
    assert said[1] == "train has 32 images: few to learn from; see data.splits"
    assert said[2].startswith("validation has no image of class ") and "and 1 more" in said[2]


def test_what_is_said_is_said_once_however_often_the_data_is_opened(
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = data(splits={"validation": 0.02, "test": 0.2})
    for _ in range(2):
        load_data(config, input_shape=(1, 8, 8))
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1 and said[0].startswith("validation has 36 images")


def test_enough_data_is_not_talked_about(caplog: pytest.LogCaptureFixture) -> None:
    load_data(data(), input_shape=(1, 8, 8))
    assert not caplog.records


@pytest.mark.parametrize(
    ("values", "task"),
    [
        ({"source": "digit_scenes"}, "segmentation or detection"),
        ({"source": "coco", "data_files": "instances.json"}, "detection"),
    ],
)
def test_a_source_for_another_task_says_which(values: dict[str, Any], task: str) -> None:
    with pytest.raises(DataError, match=f"{values['source']}' is for the task {task}: see task"):
        load_data(data(**values), input_shape=(3, 64, 64))
