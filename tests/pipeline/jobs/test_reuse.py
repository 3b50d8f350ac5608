"""Base weights that a run beside this one has already."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from paretopath import jobs
from paretopath.jobs.reuse import made_from
from paretopath.recipe import Recipe, load_recipe
from paretopath.run import Run
from paretopath.weights.files import read_metadata

BUDGET = {"search.energy_budget": "60%", "search.seed": 7, "hardware.preset": "eyeriss_like"}


@pytest.fixture
def recipe(tiny_recipe: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setattr("paretopath.jobs.reuse.code_version", lambda: "this code")
    return load_recipe(tiny_recipe)


@pytest.fixture
def trained(recipe: Recipe, tmp_path: Path) -> Iterator[Run]:
    run = Run.start(tmp_path / "first", recipe, device="cpu")
    jobs.prepare_weights(run)
    yield run


def test_another_budget_hardware_and_seed_take_the_weights_that_are_there(
    trained: Run, recipe: Recipe, tmp_path: Path
) -> None:
    told: list[Path] = []
    heard: list[object] = []
    other = Run.start(tmp_path / "other", recipe.with_overrides(BUDGET), device="cpu")
    jobs.prepare_weights(other, on_epoch=heard.append, on_taken=told.append)
    assert (told, heard) == ([trained.weights_file], [])
    assert other.weights_file.read_bytes() == trained.weights_file.read_bytes()


@pytest.mark.parametrize("origin", ["w.pth", "w.pth#model", "folder", "{model}.pth"])
def test_weights_that_changed_under_their_name_are_other_weights(
    recipe: Recipe, tmp_path: Path, origin: str
) -> None:
    (tmp_path / "folder").mkdir()
    changed = recipe.with_overrides({"weights": str(tmp_path / origin)})
    run = Run(tmp_path / "run", changed, device="cpu")
    hashes = set()
    for content in ("a", "b", "b"):
        for file in ("w.pth", "folder/model.safetensors"):
            (tmp_path / file).write_text(content)
        hashes.add(made_from(run))
    assert len(hashes) == 2


@pytest.mark.parametrize("reason", ["recipe", "code", "altered", "unknown"])
def test_weights_made_from_anything_else_are_trained(
    trained: Run, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    changed = {"train.epochs": 1} if reason == "recipe" else {"search.seed": 7}
    if reason == "code":
        monkeypatch.setattr("paretopath.jobs.reuse.code_version", lambda: "another")
    if reason == "unknown":  # code that was changed since its commit
        monkeypatch.setattr("paretopath.jobs.reuse.code_version", lambda: None)
    if reason == "altered":
        content = trained.weights_file.read_bytes()
        trained.weights_file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    told: list[Path] = []
    other = Run.start(tmp_path / "other", recipe.with_overrides(changed), device="cpu")
    jobs.prepare_weights(other, on_taken=told.append)
    assert told == [] and other.weights_file.is_file()
    assert ("made_from" in read_metadata(other.weights_file)) == (reason != "unknown")
