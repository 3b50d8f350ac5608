"""Data: splits that are fixed, images that come out right, sources that fail with one sentence."""

import io
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.transforms import InterpolationMode, v2

from paretopath.data import DataSplits, load_data
from paretopath.data.batched import affine, build_batch_transform
from paretopath.data.images import to_tensor
from paretopath.data.saying import say
from paretopath.data.splits import stratified
from paretopath.errors import DataError, InvalidValueError
from paretopath.recipe import Data
from paretopath.recipe.transforms import RandomHorizontalFlip

COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    say.cache_clear()


def data(**fields: Any) -> Data:
    return Data.model_validate(fields)


def picture(colour: str, size: tuple[int, int] = (12, 10)) -> Image.Image:
    return Image.new("RGB", size, COLOURS[colour])


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An imagefolder: 20 pictures a colour to learn from, 4 to validate with, no test."""
    for split, count in (("train", 20), ("validation", 4)):
        for colour in COLOURS:
            place = tmp_path / "pictures" / split / colour
            place.mkdir(parents=True)
            for index in range(count):
                picture(colour, (10 + index, 12)).save(place / f"{index}.png")
    return tmp_path / "pictures"


def labels_of(splits: DataSplits) -> dict[str, Counter[int]]:
    names = ("train", "validation", "test")
    return {name: Counter(getattr(splits, name).targets.tolist()) for name in names}


# digits


def test_digits_are_scikit_learns_scaled_and_normalised() -> None:
    splits = load_data(data(mean=0.25, std=0.5), input_shape=(1, 8, 8))
    digits = load_digits()
    images, labels = next(iter(splits.loader("test", batch_size=5)))
    rows = splits.test.indices[:5]
    expected = (torch.from_numpy(digits.images[rows]).float()[:, None] / 16 - 0.25) / 0.5
    torch.testing.assert_close(images, expected)
    assert labels.tolist() == digits.target[rows].tolist()
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert splits.class_names == tuple("0123456789")


def test_digits_splits_are_disjoint_complete_and_stratified() -> None:
    config = data(splits={"validation": 0.2, "test": 0.25})
    splits = load_data(config, input_shape=(1, 8, 8))
    parts = [splits.train.indices, splits.validation.indices, splits.test.indices]
    assert [len(part) for part in parts] == [989, 359, 449]
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(1797))
    for counts, share in zip(labels_of(splits).values(), (0.55, 0.2, 0.25), strict=True):
        for digit, total in enumerate(np.bincount(load_digits().target)):
            assert abs(counts[digit] - share * total) <= 2


def test_the_test_images_do_not_depend_on_the_share_of_validation() -> None:
    first = load_data(data(splits={"validation": 0.1, "test": 0.25}), input_shape=(1, 8, 8))
    second = load_data(data(splits={"validation": 0.3, "test": 0.25}), input_shape=(1, 8, 8))
    assert np.array_equal(first.test.indices, second.test.indices)


def test_splits_are_fixed_for_good_by_the_seed() -> None:
    # golden: whoever trained on a split must find it again, in every process and version
    splits = load_data(data(splits={"validation": 0.2, "test": 0.25}), input_shape=(1, 8, 8))
    assert splits.test.indices[:8].tolist() == [1, 4, 7, 10, 13, 16, 19, 24]
    assert splits.validation.indices[:8].tolist() == [5, 6, 21, 27, 29, 32, 50, 59]
    other = load_data(data(seed=1), input_shape=(1, 8, 8))
    assert not np.array_equal(splits.test.indices, other.test.indices)


def test_digits_fit_a_model_for_larger_colour_images() -> None:
    splits = load_data(data(), input_shape=(3, 32, 24))
    images, _ = next(iter(splits.loader("validation", batch_size=4)))
    assert images.shape == (4, 3, 32, 24)
    torch.testing.assert_close(images[:, 0], images[:, 2])


@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    shares=st.lists(st.floats(0, 0.5), min_size=0, max_size=2),
    seed=st.integers(0, 2**32 - 1),
)
def test_stratified_parts_partition_and_give_each_class_its_share(
    counts: list[int], shares: list[float], seed: int
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    np.random.default_rng(seed).shuffle(labels)
    sizes = [int(share * len(labels)) for share in shares]
    parts = stratified(labels, sizes, seed=seed)
    assert [len(part) for part in parts[:-1]] == sizes
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    if sizes:
        for label, count in enumerate(counts):
            share = sizes[0] * count / max(len(labels), 1)
            assert abs(np.sum(labels[parts[0]] == label) - share) <= 1


def test_stratified_refuses_more_than_there_is() -> None:
    with pytest.raises(InvalidValueError, match=r"at most 3 images together, but got \[2, 2\]"):
        stratified(np.zeros(3, np.int64), [2, 2], seed=0)


# loaders


def test_a_shuffled_loader_repeats_itself_by_seed_and_epoch() -> None:
    splits = load_data(data(), input_shape=(1, 8, 8))

    def epochs(seed: int, count: int, start: int = 0) -> list[list[int]]:
        loader: Any = splits.loader("train", shuffle_seed=seed, batch_size=100)
        loader.batch_sampler.start_at(start, 0)
        return [torch.cat([labels for _, labels in loader]).tolist() for _ in range(count)]

    first, second = epochs(seed=0, count=2)
    assert first != second
    assert sorted(first) == sorted(second) == sorted(splits.train.targets.tolist())
    assert epochs(seed=0, count=2) == [first, second]
    assert epochs(seed=0, count=1, start=1) == [second]
    assert epochs(seed=1, count=1) != [first]


def test_a_loader_without_a_seed_keeps_the_order_and_every_image() -> None:
    splits = load_data(data(), input_shape=(1, 8, 8))
    loader = splits.loader("validation", batch_size=64)
    for _ in range(2):
        seen = torch.cat([labels for _, labels in loader])
        assert torch.equal(seen, splits.validation.targets)


def test_a_small_last_batch_can_be_dropped_unless_it_is_all_there_is() -> None:
    splits = load_data(data(), input_shape=(1, 8, 8))
    sizes = [len(y) for _, y in splits.loader("train", batch_size=100, drop_last=True)]
    assert set(sizes) == {100}
    alone = splits.loader("train", batch_size=5000, drop_last=True)
    assert [len(y) for _, y in alone] == [len(splits.train)]


def test_batch_sizes_come_from_the_recipe() -> None:
    splits = load_data(data(batch_size=32, eval_batch_size=128), input_shape=(1, 8, 8))
    assert len(next(iter(splits.loader("train")))[1]) == 32
    assert len(next(iter(splits.loader("calibration")))[1]) == 128


def test_an_unknown_split_names_the_nearest() -> None:
    splits = load_data(data(), input_shape=(1, 8, 8))
    with pytest.raises(InvalidValueError, match=r"there is no split 'valid'.*did you mean 'valida"):
        splits.loader("valid")  # type: ignore[arg-type]


# sources


def test_an_imagefolder_uses_its_own_splits_and_carves_out_the_missing_one(folder: Path) -> None:
    splits = load_data(
        data(source="imagefolder", data_dir=str(folder), mean=0.0, std=1.0), input_shape=(3, 8, 8)
    )
    assert splits.class_names == ("blue", "green", "red")
    assert labels_of(splits) == {
        "train": {0: 15, 1: 15, 2: 15},
        "validation": {0: 4, 1: 4, 2: 4},
        "test": {0: 5, 1: 5, 2: 5},
    }
    for name in ("train", "validation", "test"):
        images, labels = next(iter(splits.loader(name)))
        assert images.shape[1:] == (3, 8, 8)
        colours = torch.tensor(list(COLOURS.values())) / 255.0
        torch.testing.assert_close(images, colours[labels][..., None, None].expand_as(images))


def test_names_and_shares_of_splits_follow_the_recipe(folder: Path) -> None:
    splits = load_data(
        data(
            source="imagefolder",
            data_dir=str(folder),
            splits={"train": "train", "validation": 0.3, "test": "validation"},
        ),
        input_shape=(3, 8, 8),
    )
    assert {name: sum(c.values()) for name, c in labels_of(splits).items()} == {
        "train": 42,
        "validation": 18,
        "test": 12,
    }


def test_parquet_with_picture_bytes_and_text_labels(tmp_path: Path) -> None:
    colours = [list(COLOURS)[i % 3] for i in range(30)]
    features = datasets.Features({"img": datasets.Image(), "kind": datasets.Value("string")})
    rows = {"img": [picture(colour) for colour in colours], "kind": colours}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "a.parquet")
    config = data(
        source="parquet",
        data_files=str(tmp_path / "*.parquet"),
        image="img",
        target="kind",
        mean=0.0,
        std=1.0,
    )
    splits = load_data(config, input_shape=(3, 8, 8), num_classes=3)
    assert splits.class_names == ("blue", "green", "red")
    images, labels = splits.test[0]
    torch.testing.assert_close(
        images[:, 0, 0] * 255, torch.tensor(COLOURS[splits.class_names[labels]]).float()
    )


def test_parquet_with_bare_bytes_and_numbers(tmp_path: Path) -> None:
    rows = {"image": [png(picture("red"))] * 20, "label": [0, 3] * 10}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "a.parquet")
    config = data(source="parquet", data_files=str(tmp_path / "a.parquet"), mean=0.0, std=1.0)
    splits = load_data(config, input_shape=(3, 4, 4))
    assert splits.class_names == ("0", "1", "2", "3")
    images, labels = next(iter(splits.loader("train")))
    assert set(labels.tolist()) == {0, 3}
    assert images[:, 0].unique().tolist() == [1.0] and images[:, 1:].unique().tolist() == [0.0]


def test_a_data_set_saved_to_disk_with_arrays(tmp_path: Path) -> None:
    rows = {
        "image": [np.full((6, 5), i, np.uint8) for i in range(12)],
        "label": [i % 2 for i in range(12)],
    }
    features = datasets.Features(
        {"image": datasets.Array2D((6, 5), "uint8"), "label": datasets.ClassLabel(names=["a", "b"])}
    )
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    config = data(source="load_from_disk", data_dir=str(tmp_path / "saved"), max_value=11.0)
    splits = load_data(config, input_shape=(1, 6, 5))
    assert splits.class_names == ("a", "b")
    assert splits.train.sample.max() == pytest.approx(splits.train.indices[0] / 11)


def test_csv_with_file_names_beside_it(tmp_path: Path) -> None:
    lines = ["image,label"]
    for index in range(12):
        colour = list(COLOURS)[index % 3]
        picture(colour).save(tmp_path / f"{index}.png")
        lines.append(f"{index}.png,{colour}")
    (tmp_path / "list.csv").write_text("\n".join(lines) + "\n")
    config = data(source="csv", data_files=str(tmp_path / "list.csv"))
    splits = load_data(config, input_shape=(3, 8, 8))
    assert splits.class_names == ("blue", "green", "red")
    (tmp_path / f"{splits.test.indices[-1]}.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"image \d+ of column 'image'.*cannot identify image file"):
        splits.test[len(splits.test) - 1]


@pytest.mark.parametrize("workers", [0, 2])
def test_images_kept_in_memory_equal_those_decoded_each_time(folder: Path, workers: int) -> None:
    def batches(cache_mb: float) -> list[Any]:
        config = data(
            source="imagefolder", data_dir=str(folder), cache_mb=cache_mb, workers=workers
        )
        splits = load_data(config, input_shape=(3, 8, 8))
        assert splits.validation.is_kept == (cache_mb > 0)
        return list(splits.loader("validation", batch_size=5))

    for kept, decoded in zip(batches(16.0), batches(0.0), strict=True):
        assert torch.equal(kept[0], decoded[0])
        assert torch.equal(kept[1], decoded[1])


def test_random_transforms_change_training_images_alone(folder: Path) -> None:
    config = data(
        source="imagefolder",
        data_dir=str(folder),
        transforms={
            "train": [{"name": "random_resized_crop", "scale": [0.3, 1.0]}, "color_jitter"]
        },
        workers=0,
    )
    splits = load_data(config, input_shape=(3, 8, 8))
    assert not splits.train.is_kept and splits.calibration.is_kept
    assert np.array_equal(splits.train.indices, splits.calibration.indices)
    assert splits.train.sample.shape == (3, 8, 8)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_a_batch_is_turned_as_torchvision_turns_each_image(
    interpolation: str, kind: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    images = (torch.rand(5, 3, 9, 12, generator=generator) * 255).to(kind)
    angles = torch.tensor([0.0, 10.0, -33.0, 75.0, 5.0])
    shifts = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, -1.0], [0.0, 0.0], [-3.0, 2.0]])
    scales = torch.tensor([1.0, 0.9, 1.1, 1.0, 1.3])
    moved = affine(images, angles, shifts, scales, interpolation)
    assert moved.dtype == kind
    for i, image in enumerate(images):
        expected = v2.functional.affine(
            image,
            angle=float(angles[i]),
            translate=shifts[i].tolist(),
            scale=float(scales[i]),
            shear=[0.0, 0.0],
            interpolation=InterpolationMode(interpolation),
        )
        step = 1.0 if kind == torch.uint8 else 1e-2
        torch.testing.assert_close(moved[i].float(), expected.float(), atol=step, rtol=0)


def test_augmented_digits_stay_in_memory_and_each_image_has_its_own_draw() -> None:
    config = data(
        mean=0.0,
        std=1.0,
        transforms={
            "train": [
                {"name": "random_affine", "degrees": 20, "translate": [0.2, 0.2]},
                {"name": "random_horizontal_flip", "p": 0.5},
                {"name": "random_vertical_flip", "p": 0.0},
            ]
        },
    )
    splits = load_data(config, input_shape=(1, 8, 8))
    assert splits.train.is_kept
    same = [3] * 40
    torch.manual_seed(0)
    first, second = splits.train.__getitems__(same)[0], splits.train.__getitems__(same)[0]
    assert len(first.unique(dim=0)) > 30
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(splits.train.__getitems__(same)[0], first)
    plain = splits.calibration.__getitems__(same)[0]
    assert len(plain.unique(dim=0)) == 1
    assert 0 <= first.min() and first.max() <= 1


def test_a_batch_is_mirrored_as_often_as_asked() -> None:
    flip = build_batch_transform([RandomHorizontalFlip(p=0.25)])
    images = torch.arange(6.0).reshape(1, 1, 2, 3).expand(4000, 1, 2, 3)
    torch.manual_seed(0)
    mirrored = flip(images)[:, 0, 0, 0] == 2
    assert torch.equal(flip(images).sort(-1).values, images)
    assert float(mirrored.float().mean()) == pytest.approx(0.25, abs=0.03)


def test_every_transform_of_a_recipe_gives_the_wanted_shape(folder: Path) -> None:
    names = [
        "random_crop",
        "random_horizontal_flip",
        "random_vertical_flip",
        "trivial_augment_wide",
        "rand_augment",
        {"name": "random_affine", "degrees": 10, "translate": [0.1, 0.1], "scale": [0.9, 1.1]},
        {"name": "color_jitter", "brightness": 0.2, "hue": 0.1},
        {"name": "random_erasing", "p": 1},
        {"name": "random_resized_crop", "interpolation": "bicubic"},
    ]
    config = data(
        source="imagefolder",
        data_dir=str(folder),
        transforms={"train": names, "evaluation": ["resize"]},
        workers=0,
    )
    splits = load_data(config, input_shape=(3, 8, 6))
    images, _ = next(iter(splits.loader("train", shuffle_seed=0, batch_size=30)))
    assert images.shape == (30, 3, 8, 6)
    assert images.isfinite().all()


def test_workers_draw_the_same_random_images_for_the_same_seed(folder: Path) -> None:
    config = data(
        source="imagefolder",
        data_dir=str(folder),
        transforms={"train": [{"name": "random_crop", "padding": 4}]},
        workers=1,
    )
    splits = load_data(config, input_shape=(3, 8, 8))

    def epoch(seed: int) -> torch.Tensor:
        return torch.cat([images for images, _ in splits.loader("train", shuffle_seed=seed)])

    assert torch.equal(epoch(0), epoch(0))
    assert not torch.equal(epoch(0), epoch(1))


# what goes wrong


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


# images


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
