"""Recipes: what they resolve to."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from paretopath.errors import RecipeError
from paretopath.recipe import Recipe, load_recipe
from tests.pipeline.recipe.texts import HEAD, MINIMAL, mistake

RECIPES = sorted((Path(__file__).parents[3] / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("file", RECIPES, ids=lambda file: file.name)
def test_every_recipe_loads_and_survives_a_round_trip(file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(file)
    assert recipe.name == file.stem
    recipe.save(tmp_path / "resolved.yaml")
    assert load_recipe(tmp_path / "resolved.yaml") == recipe


def test_there_are_recipes_to_load() -> None:
    assert "digits_vit.yaml" in [file.name for file in RECIPES]


def test_defaults_are_written_out(write: Any, tmp_path: Path) -> None:
    load_recipe(write(MINIMAL)).save(tmp_path / "resolved.yaml")
    values = yaml.safe_load((tmp_path / "resolved.yaml").read_text())
    assert values["hardware"]["preset"] == "magnet-16nm"
    assert values["search"]["trials"] > 0
    assert values["data"]["splits"] == {"train": "train", "validation": None, "test": None}


def test_a_saved_recipe_keeps_texts_that_look_like_numbers(write: Any, tmp_path: Path) -> None:
    options = "{a: '1e-3', b: '12', c: 'no', d: {3: [1e-3, .5]}}"
    recipe = load_recipe(
        write(f"name: toy\nspace: {{name: vit, options: {options}}}\ndata: {{}}\n")
    )
    assert recipe.space.options == {"a": "1e-3", "b": "12", "c": "no", "d": {3: [0.001, 0.5]}}
    recipe.save(tmp_path / "resolved.yaml")
    assert load_recipe(tmp_path / "resolved.yaml") == recipe


@pytest.mark.parametrize("written", ["1e-3", "1.0e-3", "0.001", "+1E-3", "1.e-3"])
def test_every_way_to_write_a_small_number_is_a_number(write: Any, written: str) -> None:
    recipe = load_recipe(write(MINIMAL + f"train: {{lr: {written}}}\n"))
    assert recipe.train.lr == 0.001


def test_files_are_relative_to_the_recipe(write: Any, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    recipe = load_recipe(
        write(
            HEAD + "weights: weights/vit.safetensors\n"
            "data: {source: parquet, data_files: {train: [a.parquet, 'https://x.org/b.parquet']}}\n"
            "hardware: {hardware: ../chip.yaml, mapping: /abs/map.yaml}\n"
        )
    )
    assert recipe.weights == str(tmp_path / "weights" / "vit.safetensors")
    assert recipe.data is not None and recipe.data.data_files == {
        "train": (str(tmp_path / "a.parquet"), "https://x.org/b.parquet")
    }
    assert recipe.hardware.hardware == str(tmp_path.parent / "chip.yaml")
    assert recipe.hardware.mapping == "/abs/map.yaml"
    assert recipe.hardware.preset is None


@pytest.mark.parametrize(
    ("written", "is_file"),
    [("timm/vit_base.augreg", False), ("./timm/vit", True), ("local", True), ("x/y.pth", True)],
)
def test_weights_are_a_hub_id_unless_they_look_like_a_file(
    write: Any, tmp_path: Path, written: str, is_file: bool
) -> None:
    (tmp_path / "local").mkdir()
    recipe = load_recipe(write(MINIMAL + f"weights: {written}\n"))
    expected = str((tmp_path / written).absolute()) if is_file else written
    assert recipe.weights is not None
    assert Path(recipe.weights) == Path(expected)


def test_names_inside_a_hub_data_set_are_left_alone(write: Any) -> None:
    recipe = load_recipe(write(HEAD + "data: {source: owner/set, data_files: part/a.parquet}\n"))
    assert recipe.data is not None
    assert recipe.data.data_files == {"train": ("part/a.parquet",)}


def test_a_source_that_starts_like_a_folder_is_one(write: Any, tmp_path: Path) -> None:
    recipe = load_recipe(write(HEAD + "data: {source: ./pictures}\n"))
    assert recipe.data is not None and recipe.data.source == str(tmp_path / "pictures")


def test_transforms_take_bare_names_and_arguments(write: Any, tmp_path: Path) -> None:
    text = (
        "data:\n  transforms:\n    train:\n      - random_horizontal_flip\n"
        "      - {name: random_resized_crop, size: 8, scale: [0.5, 1]}\n"
    )
    recipe = load_recipe(write(HEAD + text))
    assert recipe.data is not None and recipe.data.transforms.train is not None
    flip, crop = recipe.data.transforms.train
    assert (flip.name, flip.p) == ("random_horizontal_flip", 0.5)
    assert (crop.size, crop.scale) == ((8,), (0.5, 1.0))
    recipe.save(tmp_path / "resolved.yaml")
    assert load_recipe(tmp_path / "resolved.yaml") == recipe


def test_an_unquoted_off_switches_tracking_off(write: Any) -> None:
    # YAML 1.1 reads it as false
    assert load_recipe(write(MINIMAL + "tracking: {mode: off}\n")).tracking.mode == "disabled"


def test_a_recipe_can_not_be_changed(write: Any) -> None:
    recipe = load_recipe(write(MINIMAL))
    with pytest.raises(ValidationError, match="frozen"):
        recipe.search.trials = 3


def test_data_may_be_missing_only_where_a_predictor_stands_in(write: Any) -> None:
    assert "1: the recipe: the section data is missing" in mistake(write(HEAD))
    recipe = load_recipe(write(HEAD + "accuracy: {source: predictor, predictor: a.pth}\n"))
    with pytest.raises(RecipeError, match="retraining needs images, but the recipe toy has no se"):
        recipe.data_for("retraining")


def test_overrides_are_checked_and_name_the_option(write: Any) -> None:
    recipe = load_recipe(write(MINIMAL))
    changed = recipe.with_overrides({"search.trials": 7, "space.options.exits": [1, 2]})
    assert (changed.search.trials, changed.space.options) == (7, {"exits": [1, 2]})
    assert recipe.search.trials != 7
    assert changed.with_overrides({"search.trials": recipe.search.trials}).search == recipe.search
    cases: list[tuple[dict[str, Any], str]] = [
        ({"search.trials": 0}, "--trials: search.trials must be at least 1, but got 0"),
        ({"search.trails": 1}, "option search.trails: search.trails is not a field of search; leg"),
        ({"search.trials.x": 1}, "option search.trials.x: search.trials.x can't be set, because s"),
        ({"sampler": "tpe"}, "option sampler: sampler is not a field of a recipe; legal: name, t"),
        ({"weights.file": 1}, "option weights.file: weights.file can't be set, because weights "),
        (
            {"search.seed": 1, "hardware.mapping": "m.yaml"},
            "option hardware.mapping: hardware: mapping belongs to a hardware file",
        ),
        (
            {"data.transforms.train": [{"name": "resize", "size": 0}]},
            "option data.transforms.train: data.transforms.train[0].size must be at least 1",
        ),
    ]
    for overrides, expected in cases:
        with pytest.raises(RecipeError, match=f"^{re.escape(expected)}"):
            recipe.with_overrides(overrides, options={"search.trials": "--trials"})


def test_file_names_in_overrides_start_from_the_working_directory(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(write(MINIMAL))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    changed = recipe.with_overrides({"weights": "w.safetensors"})
    assert changed.weights == str(tmp_path / "elsewhere" / "w.safetensors")


def test_every_field_is_described() -> None:
    undescribed = []

    def visit(schema: dict[str, Any], name: str) -> None:
        for field, value in schema.get("properties", {}).items():
            is_self_evident = field in ("name", "seed") or "$ref" in value
            if not (value.get("description") or is_self_evident):
                undescribed.append(f"{name}.{field}")

    whole = Recipe.model_json_schema()
    visit(whole, "Recipe")
    for name, schema in whole["$defs"].items():
        visit(schema, name)
    assert undescribed == []


def test_a_search_names_paths_by_decisions_or_by_file(write: Any, tmp_path: Path) -> None:
    recipe = load_recipe(write(MINIMAL + "search:\n  paths: [{depth: 2}, net.json]\n"))
    assert recipe.search.paths == ({"depth": 2}, str(tmp_path / "net.json"))
    recipe.save(tmp_path / "resolved.yaml")
    assert load_recipe(tmp_path / "resolved.yaml").search == recipe.search


def test_decisions_may_be_settled_by_name_or_pattern(write: Any) -> None:
    space = "space: {name: vit, restrict: {'blocks.*.heads': full, exit: [1, 2]}}"
    recipe = load_recipe(write(MINIMAL.replace("space: {name: vit}", space)))
    assert recipe.space.restrict == {"blocks.*.heads": ("full",), "exit": (1, 2)}
    assert Recipe.model_validate(recipe.dump()) == recipe


def test_a_family_has_weights_by_name(write: Any) -> None:
    text = MINIMAL + "weights: {b0: ./b0, b1: nvidia/mit-b1}"
    recipe = load_recipe(write(text))
    assert isinstance(recipe.weights, dict)
    assert recipe.weights["b1"] == "nvidia/mit-b1"
    assert Path(recipe.weights["b0"]).is_absolute() and recipe.weights["b0"].endswith("/b0")


@pytest.mark.parametrize("racing", ["{shares: [0.5, 0.25]}", "{shares: [1.0]}"])
def test_racing_compares_at_rising_shares(write: Any, racing: str) -> None:
    assert "shares must rise and lie between 0 and 1" in mistake(
        write(MINIMAL + f"search: {{racing: {racing}}}")
    )


def test_racing_can_be_switched_off(write: Any) -> None:
    assert load_recipe(write(MINIMAL)).search.racing is not None
    assert load_recipe(write(MINIMAL + "search: {racing: null}")).search.racing is None
