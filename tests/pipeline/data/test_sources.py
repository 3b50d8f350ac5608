"""Sources of images: folders, files of the formats that datasets reads, Python scripts refused."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode, v2

from paretopath.data import load_data
from paretopath.data.batched import affine, build_batch_transform
from paretopath.errors import DataError
from paretopath.recipe.transforms import RandomHorizontalFlip
from tests.pipeline.data.pictures import COLOURS, data, labels_of, picture, png


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
