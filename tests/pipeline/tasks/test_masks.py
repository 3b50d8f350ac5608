"""Data for segmentation: masks in step with images, scenes of digits."""

import contextlib
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from paretopath.data.saying import say
from paretopath.data.scenes import SCENES, scenes
from paretopath.errors import DataError
from paretopath.recipe import Data
from paretopath.tasks.registry import open_data
from paretopath.tasks.segmentation import occurrence
from paretopath.tasks.segmentation.labels import Labels
from paretopath.tasks.segmentation.opening import _TableMasks
from paretopath.tasks.segmentation.section import SegmentationSection

TASK = SegmentationSection()


@pytest.fixture(autouse=True)
def nothing_said_yet() -> None:
    say.cache_clear()


def config(**values: Any) -> Data:
    return Data.model_validate({"source": "digit_scenes", **values})


def write_table(folder: Path, *, classes: int = 4, number: int = 8) -> Path:
    """Images whose red channel is 50 times the class of the pixel; class 255 is red 0."""
    rng = np.random.default_rng(0)
    features = datasets.Features({"image": datasets.Image(), "annotation": datasets.Image()})
    rows: dict[str, list[Image.Image]] = {"image": [], "annotation": []}
    for _ in range(number):
        mask = np.kron(rng.integers(1, classes, (4, 6)), np.ones((8, 8))).astype(np.uint8)
        mask[:2] = 255
        red = np.where(mask == 255, 0, mask * 50).astype(np.uint8)
        rows["image"].append(Image.fromarray(np.stack([red] * 3, -1)))
        rows["annotation"].append(Image.fromarray(mask))
    file = folder / "train.parquet"
    datasets.Dataset.from_dict(rows, features=features).to_parquet(file)
    return file


def table_config(file: Path, **values: Any) -> Data:
    return Data.model_validate(
        {
            "source": "parquet",
            "data_files": {"train": str(file)},
            "target": "annotation",
            "mean": [0.0],
            "std": [1.0],
            **values,
        }
    )


def test_scenes_are_the_same_each_time_and_differ_from_each_other() -> None:
    first, again = scenes(3)["train"], scenes(3)["train"]
    image, mask = first.example(5)
    assert image.shape == (3, 64, 64) and mask.shape == (64, 64)
    assert torch.equal(image, again.example(5)[0]) and torch.equal(mask, again.example(5)[1])
    assert not torch.equal(mask, first.example(6)[1])


def test_scenes_hold_every_class_and_splits_share_no_digit() -> None:
    parts = scenes(3)
    assert {name: len(part) for name, part in parts.items()} == SCENES
    found = torch.cat([parts["validation"].example(i)[1].flatten() for i in range(40)]).unique()
    assert found.tolist() == list(range(11))
    total = sum(len(part.digits) for part in parts.values())
    everything = np.concatenate([part.digits for part in parts.values()])
    assert total == 1797 and everything.shape == (1797, 8, 8)


def test_scenes_come_as_batches_of_images_and_masks() -> None:
    data = open_data(config(), TASK, input_shape=(3, 64, 64), num_classes=11)
    images, masks = next(iter(data.loader("validation", batch_size=4)))
    assert images.shape == (4, 3, 64, 64) and images.dtype == torch.float32
    assert masks.shape == (4, 64, 64) and masks.dtype == torch.int64
    assert data.class_names[:2] == ("ground", "0")
    assert len(data.split("train")) == SCENES["train"]


def test_images_and_masks_are_transformed_in_step(tmp_path: Path) -> None:
    transforms = {
        "train": [
            {"name": "random_resized_crop", "scale": [0.3, 1.0], "interpolation": "nearest"},
            "random_horizontal_flip",
        ]
    }
    data = open_data(
        table_config(write_table(tmp_path), transforms=transforms),
        TASK,
        input_shape=(3, 24, 40),
        num_classes=4,
    )
    torch.manual_seed(0)
    images, masks = data.split("train").__getitems__([0, 1, 2, 3])
    expected = torch.where(masks == 255, 0, masks * 50)
    assert torch.equal((images[:, 0] * 255).round().long(), expected)
    again, _ = data.split("train").__getitems__([0, 1, 2, 3])
    assert not torch.equal(images, again)


def test_what_a_transform_pads_is_ignored(tmp_path: Path) -> None:
    transforms = {"train": [{"name": "random_crop", "padding": 30}]}
    data = open_data(
        table_config(write_table(tmp_path), transforms=transforms),
        TASK,
        input_shape=(3, 32, 48),
        num_classes=4,
    )
    torch.manual_seed(0)
    images, masks = data.split("train").__getitems__(list(range(4)))
    assert ((masks == 255) == (images[:, 0] == 0)).all() and (masks == 255).float().mean() > 0.1


def test_a_class_that_the_model_does_not_know_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"image 0 of column 'annotation'.*must be under 2 or 255"):
        open_data(table_config(write_table(tmp_path)), TASK, input_shape=(3, 32, 48), num_classes=2)


def test_class_zero_can_be_skipped() -> None:
    labels = Labels(num_classes=3, ignore_index=255, skip_zero=True)
    stored = torch.tensor([0, 1, 3, 255], dtype=torch.uint8)
    assert labels.decode(labels.encode(stored)).tolist() == [255, 0, 2, 255]


def test_classes_round_trip() -> None:
    labels = Labels(num_classes=3, ignore_index=7)
    stored = torch.tensor([0, 1, 2, 7], dtype=torch.uint8)
    assert labels.decode(labels.encode(stored)).tolist() == [0, 1, 2, 7]


def test_parts_are_carved_out_once(tmp_path: Path) -> None:
    file = write_table(tmp_path, number=20)
    splits = {"validation": 0.25, "test": 0.25}
    data = [
        open_data(table_config(file, splits=splits), TASK, input_shape=(3, 32, 48), num_classes=4)
        for _ in range(2)
    ]
    names = ("train", "validation", "test")
    for name in names:
        assert (data[0].split(name).indices == data[1].split(name).indices).all()  # type: ignore
    everything = np.concatenate([data[0].split(name).indices for name in names])  # type: ignore
    assert sorted(everything.tolist()) == list(range(20))


def test_larger_images_come_as_windows_for_scoring_and_crops_for_training(tmp_path: Path) -> None:
    data = open_data(
        table_config(
            write_table(tmp_path),
            transforms={"train": ["random_crop"]},
            eval_batch_size=2,
        ),
        SegmentationSection(window=(16, 16)),
        input_shape=(3, 16, 16),
        num_classes=4,
    )
    images, masks = next(iter(data.loader("validation", batch_size=1)))
    assert masks.shape == (1, 32, 48) and images.shape == (3 * 5, 3, 16, 16)
    assert data.split("train")[0][0].shape == (3, 16, 16)


def test_masks_are_refused_for_transforms_that_have_no_form_for_them(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="rand_augment can't transform masks"):
        open_data(
            table_config(write_table(tmp_path), transforms={"train": ["rand_augment"]}),
            TASK,
            input_shape=(3, 32, 48),
            num_classes=4,
        )


def test_the_task_decides_what_targets_are() -> None:
    data = open_data(config(), TASK, input_shape=(3, 64, 64), num_classes=11)
    assert data.split("test")[0][1].shape == (64, 64)
    with pytest.raises(DataError, match="num_classes"):
        open_data(config(), TASK, input_shape=(3, 64, 64))


def mask_table(folder: Path, masks: list[np.ndarray], column: str = "annotation") -> Path:
    features = datasets.Features({"image": datasets.Image(), column: datasets.Image()})
    pictures = [Image.new("RGB", mask.shape[::-1], "grey") for mask in masks]
    rows = {"image": pictures, column: [Image.fromarray(mask) for mask in masks]}
    file = folder / "masks.parquet"
    datasets.Dataset.from_dict(rows, features=features).to_parquet(file)
    return file


def halves(*classes: int) -> np.ndarray:
    """(8, 8) as many equal stripes as there are classes."""
    return np.repeat(np.array(classes, np.uint8), 64 // len(classes)).reshape(8, 8)


def test_two_classes_stored_as_0_and_255_are_refused_before_training(tmp_path: Path) -> None:
    file = mask_table(tmp_path, [halves(0, 255)] * 10)
    expected = (
        r"at least two classes, but 6 masks of train hold only 0; 50\.0 % of the pixels in "
        r"6 masks of train are ignored \(255\): a class must not be stored as what is ignored"
    )
    with pytest.raises(DataError, match=expected):
        open_data(table_config(file), TASK, input_shape=(3, 8, 8), num_classes=2)


@pytest.mark.parametrize(
    ("task", "void"),
    [
        (SegmentationSection(), 255),
        (SegmentationSection(ignore_index=1), 1),
        (SegmentationSection(skip_zero=True), 0),
    ],
)
def test_masks_that_are_void_everywhere_are_refused(
    task: SegmentationSection, void: int, tmp_path: Path
) -> None:
    file = mask_table(tmp_path, [halves(void)] * 10)
    with pytest.raises(DataError, match=r"must hold classes, but 100\.0 % of the pixels in"):
        open_data(table_config(file), task, input_shape=(3, 8, 8), num_classes=2)


def test_masks_of_validation_that_are_void_are_refused(tmp_path: Path) -> None:
    train = mask_table(tmp_path, [halves(0, 1)] * 10)
    (tmp_path / "validation").mkdir()
    void = mask_table(tmp_path / "validation", [halves(255)] * 2)
    files = {"train": str(train), "validation": str(void)}
    with pytest.raises(DataError, match="2 masks of validation are ignored"):
        open_data(table_config(train, data_files=files), TASK, input_shape=(3, 8, 8), num_classes=2)


def test_classes_that_never_occur_and_what_is_ignored_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    masks = [halves(1, 2, 255, 255)] * 9 + [np.full((8, 8), 255, np.uint8)]  # one is all void
    data = open_data(
        table_config(mask_table(tmp_path, masks)),
        SegmentationSection(skip_zero=True),
        input_shape=(3, 8, 8),
        num_classes=3,
    )
    assert len(data.train) == 6
    said = [record.getMessage() for record in caplog.records if "pixel" in record.getMessage()]
    assert said[0] == ("no pixel of class '3' in 6 masks of train: nothing can be learned of it")
    assert any(text.startswith("no pixel of class '3' in 2 masks of validation") for text in said)
    assert any(
        text.endswith("% of the pixels in 6 masks of train are ignored (0 and 255)")
        for text in said
    )


def test_masks_without_fault_are_not_talked_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = mask_table(tmp_path, [halves(0, 1, 2, 3)] * 400)
    open_data(table_config(file), TASK, input_shape=(3, 8, 8), num_classes=4)
    assert not caplog.records


def test_a_part_of_many_masks_is_looked_at_evenly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(occurrence, "LOOKED_AT", 3)
    table = datasets.Dataset.from_parquet(str(mask_table(tmp_path, [halves(0)] * 5 + [halves(1)])))
    masks = _TableMasks(table, table_config(tmp_path), 3, split="train")
    found = occurrence.count_classes(masks, np.arange(6), Labels(3, 255))
    assert str(found) == "3 of 6 masks" and found.pixels.tolist() == [0, 3 * 64, 0, 0]
    assert (found.classes, found.absent) == ([0], [1, 2])


@pytest.mark.parametrize("mode", ["1", "P", "I;16", "L"])
def test_masks_hold_classes_whatever_the_file_holds_them_in(mode: str, tmp_path: Path) -> None:
    array = halves(0, 1)
    if mode == "P":
        picture = Image.fromarray(array).convert("P")
        picture.putdata(array.flatten().tolist())
        picture.putpalette([9, 9, 9, 200, 0, 0])
    elif mode == "I;16":
        picture = Image.fromarray(array.astype(np.uint16))
    elif mode == "1":
        picture = Image.fromarray(array * 255).convert("1")
    else:
        picture = Image.fromarray(array)
    for index in range(8):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{index}.png")
    picture.save(tmp_path / "mask.png")
    lines = ["image,annotation", *(f"{index}.png,mask.png" for index in range(8))]
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    config = table_config(tmp_path / "list.csv", source="csv")
    data = open_data(config, TASK, input_shape=(3, 8, 8), num_classes=2)
    assert torch.equal(data.split("test")[0][1], torch.from_numpy(array).long())


def test_a_mask_in_colours_is_named_with_its_file(tmp_path: Path) -> None:
    for index in range(8):
        Image.new("RGB", (8, 8)).save(tmp_path / f"{index}.png")
    lines = ["image,annotation", *(f"{index}.png,{index}.png" for index in range(8))]
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    config = table_config(tmp_path / "list.csv", source="csv")
    with pytest.raises(DataError, match=r"column 'annotation'.*\d\.png\): a mask must hold"):
        open_data(config, TASK, input_shape=(3, 8, 8), num_classes=2)


def test_masks_that_are_jpegs_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for index in range(8):
        Image.new("RGB", (8, 8), "grey").save(tmp_path / f"{index}.png")
        Image.fromarray(halves(0, 255)).save(tmp_path / f"{index}.jpg", quality=100)
    rows = [f"{index}.png,{index}.jpg" for index in range(8)]
    (tmp_path / "list.csv").write_text("\n".join(["image,mask", *rows]) + "\n")
    config = Data(source="csv", data_files={"train": (str(tmp_path / "list.csv"),)}, target="mask")
    with contextlib.suppress(DataError):  # of classes in between
        open_data(config, TASK, input_shape=(3, 8, 8), num_classes=4)
    assert caplog.text.count("masks are JPEGs, which keep values only nearly") == 1
