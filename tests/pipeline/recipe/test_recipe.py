"""Recipes: what they resolve to, and what a mistake in one says."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from paretopath.errors import InvalidValueError, RecipeError
from paretopath.recipe import Recipe, load_recipe, parse_budget

RECIPES = sorted((Path(__file__).parents[3] / "recipes").glob("*.yaml"))
HEAD = "name: toy\nspace: {name: vit}\n"
MINIMAL = HEAD + "data: {source: digits}\n"


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def to_file(text: str | bytes, name: str = "toy.yaml") -> Path:
        file = tmp_path / name
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return to_file


def mistake(file: Path) -> str:
    """The whole message of a recipe's error, after the file's name."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{file}:")
    return message.removeprefix(f"{file}:")


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


# one mistake each, on line 4, below MINIMAL
MISTAKES = [
    (
        "search: {trails: 20}",
        "4: search.trails is not a field of search; legal: trials, paths, seed, sampler, ",
    ),
    ("serach:\n  trials: 3", "4: serach is not a field of a recipe; legal: name, task, space, "),
    ("search:\n  seed: 1\n  trials: 0", "6: search.trials must be at least 1, but got 0"),
    (
        "search: {trials: 99999999999999999999999}",
        "4: search.trials must be at most 100000, but got 99999999999999999999999",
    ),
    ("search: {generation: 10000000}", "4: search.generation must be at most 100000, but got 1"),
    ("search: {workers: 1000000}", "4: search.workers must be at most 10000, but got 1000000"),
    ("search: {trials: '20'}", "4: search.trials must be a whole number, but got '20' (text)"),
    ("search: {trials: 20.5}", "4: search.trials must be a whole number, but got 20.5"),
    ("search: {trials: true}", "4: search.trials must be a whole number, but got true"),
    ("search: {trials: }", "4: search.trials must be a whole number, but got nothing (null)"),
    ("search: 5", "4: search must be a mapping of fields, but got 5"),
    (
        "search:\n  sampler: nsga3",
        "5: search.sampler must be one of its choices, but got 'nsga3'; "
        "legal: model, nsga2, tpe, gp, random; did you mean 'nsga2'?",
    ),
    ("train: {lr: 0}", "4: train.lr must be over 0, but got 0"),
    ("train: {lr: .inf}", "4: train.lr must be finite, but got inf"),
    ("train: {lr: fast}", "4: train.lr must be a number, but got 'fast'"),
    ("train: {label_smoothing: 1}", "4: train.label_smoothing must be under 1, but got 1"),
    (
        "retrain: {distillation_weight: 1.5}",
        "4: retrain.distillation_weight must be at most 1, but got 1.5",
    ),
    (
        "retrain: {epochs: 2, warmup_epochs: 3}",
        "4: retrain: warmup_epochs must be at most epochs, but got 3 of 2",
    ),
    (
        "search: {energy_budget: 12.5}",
        "4: search.energy_budget: a budget must be a share of the full path or an amount with its "
        "unit, such as 70% or 12.5mJ, but got '12.5'",
    ),
    (
        "search: {latency_budget: 5mJ}",
        "4: search.latency_budget: a budget's unit must be one that ",
    ),
    (
        "hardware: {preset: simba-like, hardware: a.yaml}",
        "4: hardware: preset and hardware exclude each other",
    ),
    (
        "hardware: {preset: simba-like, threads: 2}",
        "4: hardware: threads: only for model device, but model is accelerator",
    ),
    (
        "hardware: {mapping: a.yaml}",
        "4: hardware: mapping belongs to a hardware file, but none is given",
    ),
    (
        "accuracy: {source: predictor}",
        "4: accuracy: source predictor and predictor (a file or URL) belong together",
    ),
    (
        "accuracy: {source: predictor, predictor: 'https://x.org/p.pth'}",
        "4: accuracy: a predictor from a URL needs its sha256",
    ),
    ("accuracy: {sha256: abc}", "4: accuracy.sha256 must match ^[0-9a-f]{64}$, but got 'abc'"),
    (
        "task: {name: clasification}",
        "4: task.name: there is no task 'clasification'; legal: classification, detection, "
        "segmentation, module:Class; did you mean 'classification'?",
    ),
    ("task: {}", "4: task.name is missing"),
    ("task: [segmentation]", "4: task must be a mapping of fields, but got ['segmentation']"),
    ("task: {name: 3}", "4: task.name must be text, but got 3"),
    (
        "task:\n  name: segmentation\n  ignored: 0",
        "6: task.ignored is not a field of task; legal: name, ignore_index, skip_zero, window, "
        "stride; did you mean 'ignore_index'?",
    ),
    (
        "task:\n  name: segmentation\n  window: [8, 8, 8]",
        "6: task.window must have at most 2 entries, but got ",
    ),
    ("task: {name: segmentation, stride: 8}", "4: task: stride belongs to a window, but none is"),
    ("task: {name: classification, window: 8}", "4: task.window is not a field of task; legal: na"),
    ("task: {name: 'paretopath.recipe:Data'}", "4: task.name: task 'paretopath.recipe:Data' must "),
    ("tracking: {tags: a}", "4: tracking.tags must be a list, but got 'a'"),
    ("launch: {setup: [module load cuda, 7]}", "4: launch.setup[1] must be text, but got 7"),
    ("weights: ''", "4: weights must not be empty, but got ''"),
    ("search: {trials: 3, trials: 4}", "4: a key must be given once, but 'trials' already stands"),
    ("name: again", "4: a key must be given once, but 'name' already stands on line 1"),
    ("search: &a {seed: *a}", "4: a value must not contain itself"),
    ("search: {trials: 3", "4: this is not YAML: "),
    ("search:\n\ttrials: 3", "5: this is not YAML: found character '\\t' that cannot start any "),
    ("weights: !!python/name:os.system x", "4: this is not YAML: could not determine a construc"),
]


@pytest.mark.parametrize(("text", "expected"), MISTAKES)
def test_a_mistake_is_one_sentence_with_line_field_rule_and_value(
    write: Any, text: str, expected: str
) -> None:
    assert mistake(write(MINIMAL + text + "\n")).startswith(expected)


# one mistake each, on line 4, inside the data section
DATA_MISTAKES = [
    ("sorce: digits", "4: data.sorce is not a field of data; legal: source, config, "),
    ("splits: {validation: 20}", "4: data.splits.validation must be a split of the source or a "),
    ("splits: {validation: 1.0}", "4: data.splits.validation must be a split of the source or a "),
    (
        "splits: {validation: 0.5, test: 0.6}",
        "4: data.splits: validation and test must be shares that leave some of train, "
        "but they add up to 1.1",
    ),
    ("mean: [0.5, x]", "4: data.mean[1] must be a number, but got 'x'"),
    ("std: 0", "4: data.std must be over 0, but got 0"),
    ("mean: [123.7, 116.3, 103.5]", "4: data.mean must be from 0 to 1, as images are scaled"),
    ("std: [58.4, 57.1, 57.4]", "4: data.std must be from 0 to 1, as images are scaled"),
    ("data_dir: somewhere", "3: data: source digits takes no data_dir, data_files, config or rev"),
    ("source: imagefolder", "3: data: source imagefolder needs data_dir"),
    ("source: parquet", "3: data: source parquet needs data_files"),
    (
        "transforms: {train: [random_flip]}",
        "4: data.transforms.train[0].name must be one of its choices, but got 'random_flip'; ",
    ),
    (
        "transforms: {train: [{name: resize, sise: 8}]}",
        "4: data.transforms.train[0].sise is not a field of data.transforms.train[0]; "
        "legal: name, size, interpolation; did you mean 'size'?",
    ),
    (
        "transforms: {train: [{name: resize}, {size: 8}]}",
        "4: data.transforms.train[1].name is missing",
    ),
    (
        "transforms: {train: [{name: random_crop, size: [8, 0]}]}",
        "4: data.transforms.train[0].size[1] must be at least 1, but got 0",
    ),
    (
        "transforms: {train: [{name: random_resized_crop, scale: [1, 0.5]}]}",
        "4: data.transforms.train[0].scale must be the least and the largest value, both over 0, "
        "in this order, but got [1, 0.5]",
    ),
    (
        "transforms: {evaluation: [random_vertical_flip]}",
        "4: data.transforms.evaluation must be free of randomness (resize, center_crop), "
        "but holds random_vertical_flip",
    ),
]


@pytest.mark.parametrize(("text", "expected"), DATA_MISTAKES)
def test_a_mistake_in_the_data_section_names_its_place(
    write: Any, text: str, expected: str
) -> None:
    assert mistake(write(HEAD + f"data:\n  {text}\n")).startswith(expected)


def test_of_several_mistakes_the_first_in_the_file_is_told(write: Any) -> None:
    file = write("name: toy\nsearch: {trials: 0}\nspace: {nam: vit}\ndata: {}\ntrain: {lr: x}\n")
    assert mistake(file) == "2: search.trials must be at least 1, but got 0 (and 3 more)"


def test_a_section_that_is_missing_is_named(write: Any) -> None:
    assert mistake(write("name: toy\ndata: {}\n")) == "1: space is missing"


def test_data_may_be_missing_only_where_a_predictor_stands_in(write: Any) -> None:
    assert "1: the recipe: the section data is missing" in mistake(write(HEAD))
    recipe = load_recipe(write(HEAD + "accuracy: {source: predictor, predictor: a.pth}\n"))
    with pytest.raises(RecipeError, match="retraining needs images, but the recipe toy has no se"):
        recipe.data_for("retraining")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "1: a recipe must be a mapping of sections, but this is empty"),
        ("# only a comment\n", "1: a recipe must be a mapping of sections, but this is empty"),
        ("\n- a\n- b\n", "2: a recipe must be a mapping of sections, but got a list"),
        ("vit\n", "1: a recipe must be a mapping of sections, but got the value 'vit'"),
        (b"name: \xff\n", " a recipe must be text in UTF-8, but byte 6 is not"),
        ("name: 'a\x00b'\n", " this is not YAML: unacceptable character"),
        ("name: 2024-13-45\n", " this is not YAML: month must be in 1..12"),
        ("[" * 700, " this is not YAML: maximum recursion depth exceeded"),
        ("a: 1\n---\nb: 2\n", "2: this is not YAML: but found another document"),
        ("on: 1\n" + MINIMAL, "1: "),
    ],
)
def test_a_file_that_is_no_recipe_says_why(write: Any, content: str | bytes, expected: str) -> None:
    assert mistake(write(content)).startswith(expected)


def test_a_missing_recipe_names_the_nearest_one(write: Any, tmp_path: Path) -> None:
    write(MINIMAL, "digits_vit.yaml")
    write(MINIMAL, "other.yaml")
    for wanted in ("digit_vit.yaml", "digits_vit"):
        with pytest.raises(RecipeError, match=r"^there is no recipe .*did you mean '.*digits_vit"):
            load_recipe(tmp_path / wanted)
    with pytest.raises(RecipeError, match="can't be read: Is a directory"):
        load_recipe(tmp_path)


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


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [
        ("70%", "mJ", 140.0),
        ("100 %", "ms", 200.0),
        ("12.5mJ", "mJ", 12.5),
        ("0.2J", "mJ", 200.0),
        ("900 uJ", "mJ", 0.9),
        ("900µJ", "mJ", 0.9),
        ("900\u03bcJ", "mJ", 0.9),
        ("5e3nJ", "mJ", 0.005),
        ("8ms", "ms", 8.0),
        ("1.5s", "ms", 1500.0),
        ("750us", "ms", 0.75),
    ],
)
def test_a_budget_is_a_share_or_an_amount(text: str, unit: Any, expected: float) -> None:
    assert parse_budget(text, unit, 200.0) == pytest.approx(expected, rel=1e-12)


@given(share=st.floats(0.001, 100), full=st.floats(1e-6, 1e6))
def test_a_percentage_scales_with_the_full_path(share: float, full: float) -> None:
    assert parse_budget(f"{share:.6f}%", "mJ", full) == pytest.approx(
        full * float(f"{share:.6f}") / 100
    )


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [
        ("70", "mJ", "such as 70% or 12.5mJ, but got '70'"),
        ("", "ms", "such as 70% or 8ms, but got ''"),
        ("-5mJ", "mJ", "but got '-5mJ'"),
        ("nan%", "mJ", "but got 'nan%'"),
        ("0%", "mJ", "over 0 and at most 100, but got '0%'"),
        ("101%", "mJ", "over 0 and at most 100, but got '101%'"),
        ("0mJ", "mJ", "must be over 0 and finite, but got '0mJ'"),
        ("1e999J", "mJ", "must be over 0 and finite, but got '1e999J'"),
        ("8ms", "mJ", "limits energy, but got '8ms'; legal: %, J, mJ, uJ, µJ, nJ"),
        ("3mj", "mJ", "did you mean 'mJ'?"),
        ("3 sec", "ms", "limits latency, but got '3 sec'"),
    ],
)
def test_a_wrong_budget_says_what_it_may_be(text: str, unit: Any, expected: str) -> None:
    with pytest.raises(InvalidValueError, match=re.escape(expected)):
        parse_budget(text, unit, 200.0)


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


def test_a_preset_that_there_is_not_is_refused_where_it_stands(write: Any) -> None:
    said = mistake(write(MINIMAL + "hardware: {preset: magnet}\n"))
    assert said.startswith("4: hardware.preset: there is no hardware preset 'magnet'; legal: ")
