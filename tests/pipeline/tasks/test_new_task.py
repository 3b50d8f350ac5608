"""The page about a new task: its example runs, from the data to a model that leaves early."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from paretopath import DynamicModel, jobs, load_recipe
from paretopath.errors import RecipeError
from paretopath.run import Run, build_space, open_images
from paretopath.tasks.registry import create_task
from paretopath.tasks.task import Task
from tests.pipeline.tasks.task_contract import TaskContract

ROOT = Path(__file__).parents[3]
COLOURS = np.array(["red", "green", "blue"])
BLOCK = re.compile(r'```\w+ title="(?P<name>[\w.]+)"\n(?P<text>.*?)```', re.DOTALL)


def write_pictures(folder: Path, number: int = 320) -> None:
    """Pictures in which each colour may be bright."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = []
    for index in range(number):
        bright = rng.random(3) < 0.5
        pixels = (rng.integers(0, 60, (8, 8, 3)) + 150 * bright).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        line = {"file_name": f"{index}.png", "labels": COLOURS[bright].tolist()}
        lines.append(json.dumps(line))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder that the page describes, whose modules can be imported."""
    folder = tmp_path_factory.mktemp("example")
    for block in BLOCK.finditer((ROOT / "docs" / "new_task.md").read_text()):
        (folder / block["name"]).write_text(block["text"])
    write_pictures(folder / "pictures")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        patch.syspath_prepend(folder)
        yield folder
    for name in ("multi_label", "multi_label_task"):
        sys.modules.pop(name, None)


def test_the_example_is_searched_and_deployed(example: Path) -> None:
    recipe = load_recipe(example / "colours.yaml")
    run = Run.start(example / "run", recipe, device="cpu")
    jobs.prepare_weights(run)
    front = jobs.search_run(run)
    assert front.full.accuracy > 0.9  # chance is 0.5
    assert load_recipe(run.recipe_file) == recipe

    dynamic = DynamicModel.load(run.directory)
    batches = open_images(recipe, build_space(recipe)).loader("test")
    images, _ = next(iter(batches))
    first, _ = dynamic.classify_early(images, threshold=1e-6)
    sure = create_task(recipe.task, training=recipe.train).confidence(first)
    logits, exits = dynamic.classify_early(images, threshold=float(sure.median()))
    assert logits.shape == (len(images), 3)
    assert torch.equal(exits == 0, sure >= sure.median())  # by the task's own confidence


def test_its_options_are_checked_as_all_of_a_recipe(example: Path, tmp_path: Path) -> None:
    text = (example / "colours.yaml").read_text()
    for wrong, expected in [
        ("threshold: 1.5", r":5: task\.threshold must be under 1, but got 1\.5"),
        ("treshold: 0.5", r":5: task\.treshold is not a field of task; .*mean 'threshold'"),
    ]:
        (tmp_path / "wrong.yaml").write_text(text.replace("threshold: 0.5", wrong))
        with pytest.raises(RecipeError, match=expected):
            load_recipe(tmp_path / "wrong.yaml")


class TestMultiLabel(TaskContract):
    @pytest.fixture(autouse=True)
    def importable(self, example: Path) -> None:
        """The page's modules are on the path."""

    def task(self) -> Task:
        from multi_label_task import MultiLabel  # type: ignore[import-not-found]

        task: Task = MultiLabel(0.5, 0.5)
        return task

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        output = torch.randn(6, 4, generator=generator)
        return output, (torch.rand(6, 4, generator=generator) < 0.5).float()
