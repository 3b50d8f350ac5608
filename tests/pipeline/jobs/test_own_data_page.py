"""The recipes of the page about own images, masks and weights run as they stand."""

import argparse
import logging
import re
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
import timm
import torch
from PIL import Image

from paretopath import DynamicModel
from paretopath.front import load_front
from tests.pipeline.cli.command import run_here

PAGE = (Path(__file__).parents[3] / "docs" / "own_data.md").read_text(encoding="utf-8")
RECIPES = dict(re.findall(r'```yaml title="([\w.]+)"\n(.*?)```', PAGE, flags=re.DOTALL))
COLOURS = {"daisy": (230, 230, 210), "rose": (200, 40, 60), "tulip": (240, 180, 40)}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader copies the recipes to."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    for name, text in RECIPES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def photograph(rng: np.random.Generator, colour: tuple[int, ...]) -> tuple[Image.Image, np.ndarray]:
    """A bright spot of a colour on dark ground, and where it is."""
    y, x = np.mgrid[:72, :80]
    centre = rng.integers(24, 48, 2)
    spot = (y - centre[0]) ** 2 + (x - centre[1]) ** 2 < rng.integers(14, 24) ** 2
    pixels = np.where(spot[..., None], colour, rng.integers(0, 60, 3)) + rng.normal(
        0, 8, (72, 80, 3)
    )
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)), spot


def flowers(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for split, number in (("train", 40), ("test", 20)):
        for name, colour in COLOURS.items():
            (folder / "flowers" / split / name).mkdir(parents=True)
            for index in range(number):
                image, _ = photograph(rng, colour)
                image.save(folder / "flowers" / split / name / f"{index:04d}.jpg")


def road(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / "road" / part).mkdir(parents=True)
    lines = ["image,mask"]
    for index in range(48):
        image, spot = photograph(rng, (200, 200, 200))
        image.save(folder / "road" / "images" / f"{index:04d}.jpg")
        Image.fromarray(spot.astype(np.uint8)).save(folder / "road" / "masks" / f"{index:04d}.png")
        lines.append(f"images/{index:04d}.jpg,masks/{index:04d}.png")
    (folder / "road" / "train.csv").write_text("\n".join(lines) + "\n")


def fine_tuned(folder: Path) -> None:
    flowers(folder)
    torch.manual_seed(0)
    state = timm.create_model("vit_tiny_patch16_224").state_dict()
    args = argparse.Namespace(model="vit_tiny_patch16_224", lr=0.1)
    torch.save({"epoch": 3, "state_dict": state, "args": args}, folder / "model_best.pth.tar")


def test_the_page_has_the_recipes_that_are_run_here() -> None:
    assert set(RECIPES) == {"flowers.yaml", "road.yaml", "fine_tuned.yaml"}


@pytest.mark.parametrize(
    ("name", "write", "lacks", "chance"),
    [
        ("flowers", flowers, (), 1 / 3),
        ("road", road, (), 0.42),  # mIoU where all is one class
        ("fine_tuned", fine_tuned, ("no exits but the last", "of 1000 classes"), 1 / 3),
    ],
)
def test_a_recipe_of_the_page_runs_as_it_stands(
    name: str,
    write: Callable[[Path], None],
    lacks: tuple[str, ...],
    chance: float,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write(folder)
    with caplog.at_level(logging.WARNING):
        assert run_here("search", f"{name}.yaml", "--device", "cpu") == 0
    trained = [r.getMessage() for r in caplog.records if "trained first" in r.getMessage()]
    assert len(trained) == bool(lacks) and all(why in trained[0] for why in lacks)
    front = load_front(folder / "runs" / name)
    assert front.full.accuracy > chance + 0.15
    dynamic = DynamicModel.load(folder / "runs" / name)
    image, _ = photograph(np.random.default_rng(7), COLOURS["rose"])
    assert torch.isfinite(dynamic(dynamic.preprocess(image))).all()
