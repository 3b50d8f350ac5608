"""What a mistake in a recipe says."""

from pathlib import Path
from typing import Any

import pytest

from paretopath.errors import RecipeError
from paretopath.recipe import load_recipe
from tests.pipeline.recipe.texts import HEAD, MINIMAL, mistake

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


def test_a_preset_that_there_is_not_is_refused_where_it_stands(write: Any) -> None:
    said = mistake(write(MINIMAL + "hardware: {preset: magnet}\n"))
    assert said.startswith("4: hardware.preset: there is no hardware preset 'magnet'; legal: ")
