"""Recipes to copy, and recipes that are written for a model and a folder of images."""

import json
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from paretopath.recipe import load_recipe
from paretopath.recipe.shipped import shipped_recipes
from tests.pipeline.cli.command import run_here

ROOT = Path(__file__).parents[3]
Said = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """Runs a command: exit status, standard output and standard error, on one line each."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        status = run_here(*arguments)
        captured = capsys.readouterr()
        return status, " ".join(captured.out.split()), " ".join(captured.err.split())

    return run


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Ten grey pictures of 40 x 48 pixels for each of three classes, and a test split."""
    pixels = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 2)):
        for name in ("ant", "bee", "fly"):
            folder = tmp_path / "my photos" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                values = pixels.integers(0, 256, (40, 48), dtype=np.uint8)
                Image.fromarray(values).save(folder / f"{i}.png")
    return tmp_path / "my photos"


def test_every_shipped_recipe_is_listed_with_what_it_needs(said: Said) -> None:
    status, out, _ = said("recipes", "--json")
    listed = {row["name"]: row for row in json.loads(out)["recipes"]}
    assert status == 0 and set(listed) == {f.stem for f in (ROOT / "recipes").glob("*.yaml")}
    assert listed["digits_vit"]["needs"] == []
    assert listed["dino_digit_scenes"]["needs"] == ["the extra detection"]
    assert listed["segformer_b2_ade20k"]["needs"] == ["images and weights from the hub"]
    assert listed["segformer_camvid"]["needs"] == ["images of your own"]
    assert listed["ofa_resnet50"]["needs"] == ["a predictor from the network"]
    assert listed["digits_vit"]["about"].startswith("A vision transformer with early exits")
    assert all(name in said("recipes")[1] for name in listed)


def test_a_recipe_is_copied_once(said: Said) -> None:
    status, out, _ = said("recipes", "digits_vit")
    copied = Path("digits_vit.yaml")
    assert status == 0 and "paretopath search digits_vit.yaml" in out
    assert copied.read_bytes() == (ROOT / "recipes" / "digits_vit.yaml").read_bytes()
    copied.write_text("mine")
    assert said("recipes", "digits_vit.yaml")[::2] == (
        2,
        "paretopath: digits_vit.yaml exists already; --force replaces it",
    )
    assert copied.read_text() == "mine"
    assert said("recipes", "digits_vit", "--force")[0] == 0
    assert load_recipe(copied).name == "digits_vit"


def test_a_misspelt_recipe_names_the_nearest(said: Said) -> None:
    status, _, err = said("recipes", "digit_vit")
    assert status == 2 and "did you mean 'digits_vit'?" in err


def test_a_wheel_holds_the_recipes(tmp_path: Path) -> None:
    build = ["uv", "build", "--wheel", "--quiet", "--offline", "--out-dir", str(tmp_path), "."]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    if done.returncode and "hatchling" in done.stderr:
        pytest.skip("the build backend is not in uv's cache")
    assert done.returncode == 0, done.stderr
    held = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert {f"paretopath/recipes/{name}.yaml" for name in shipped_recipes()} <= set(held)


def written(said: Said, photos: Path, *more: str) -> tuple[dict[str, Any], str]:
    """What `init` says it found, and the recipe that it wrote."""
    status, out, err = said("init", "--model", "test_resnet", "--data", photos, *more, "--json")
    assert status == 0, err
    found: dict[str, Any] = json.loads(out)
    return found, Path("recipe.yaml").read_text()


def test_a_recipe_for_a_model_and_a_folder_runs_as_it_stands(said: Said, photos: Path) -> None:
    found, text = written(said, photos, "--budget", "70%")
    assert found["classes"] == ["ant", "bee", "fly"] and found["grey"] > 0
    assert found["images"] == {"train": 26, "validation": 4, "test": 6}
    assert found["input_shape"] == [3, 64, 64]  # the published 160 are more than the images have
    assert found["published"] in text
    recipe = load_recipe("recipe.yaml")
    assert recipe.data is not None and recipe.data.data_dir == str(photos)
    assert recipe.space.options["arguments"] == {"num_classes": 3}
    assert recipe.data.mean == (0.5, 0.5, 0.5) and recipe.weights is None
    assert recipe.search.limits == {"energy_mj": "70%"}
    assert {entry.name for entry in Path().iterdir()} == {"my photos", "recipe.yaml"}
    status, out, _ = said("search", "recipe.yaml", "--dry-run", "--json", "--device", "cpu")
    plan = json.loads(out)
    assert status == 0 and plan["images"] == found["images"] and plan["size"] == found["paths"]


@pytest.mark.parametrize("classes", [3, 5])
def test_a_head_for_other_classes_is_trained_first(
    classes: int, said: Said, photos: Path, tmp_path: Path
) -> None:
    model = timm.create_model("test_resnet", num_classes=classes)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "mine.pth")
    found, text = written(said, photos, "--weights", "mine.pth", "--size", "32")
    recipe = load_recipe("recipe.yaml")
    assert recipe.data is not None and recipe.weights == str(tmp_path / "mine.pth")
    assert bool(found["new"]) == (classes != 3) == ("on the frozen rest" in text)
    assert (recipe.data.transforms.train is None) == (classes != 3)


def test_what_was_found_is_shown_and_what_is_typed_next(said: Said, photos: Path) -> None:
    status, out, err = said("init", "--model", "test_resnet", "--data", photos)
    assert "examples/s" not in err and "files/s" not in err  # the bars of the data library
    assert status == 0 and out.endswith("Written: recipe.yaml Next: paretopath search recipe.yaml")
    for shown in ("3: ant, bee, fly", "grey, sides of 40 to 48 pixels", "images of 3 x 64 x 64"):
        assert shown in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--data", "nowhere"], "there is none at"),
        (["--data", "bare"], "needs at least two such folders"),
        (["--data", "texts"], "there is no picture in texts, only files with .txt"),
        (["--data", "texts/empty"], "there is no picture in texts/empty"),
        (["--model", "test_resnett"], "did you mean 'test_resnet'?"),
        (["--model", "test_resnet.r160_in1kk"], "did you mean 'test_resnet.r160_in1k'?"),
        (["--weights", "absent.pth"], "there is no weights file absent.pth"),
        (["--weights", "text.pth"], "can't be read as weights"),
        (["--hardware", "magnet"], "did you mean 'magnet-16nm'?"),
        (["--budget", "much"], "a budget must be"),
        (["--space", "segformer"], "makes no model of a name alone"),
        (["--output", "text.pth"], "text.pth exists already; --force replaces it"),
    ],
)
def test_a_mistake_is_one_sentence_and_nothing_is_written(
    arguments: list[str], sentence: str, said: Said, photos: Path
) -> None:
    Path("text.pth").write_text("no weights")
    Path("bare/one").mkdir(parents=True)
    Path("texts/empty").mkdir(parents=True)
    Path("texts/one.txt").write_text("no picture")
    Image.new("RGB", (8, 8)).save("bare/one/1.png")
    before = set(Path().iterdir())
    given = {"--model": "test_resnet", "--data": str(photos)}
    given |= dict(zip(arguments[::2], arguments[1::2], strict=True))
    status, out, err = said("init", *(word for pair in given.items() for word in pair))
    assert status == 2 and out == "" and sentence in err and "Traceback" not in err
    assert set(Path().iterdir()) == before


def test_questions_are_asked_only_when_wanted(
    said: Said, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, _, err = said("init", "--data", photos)
    assert status == 2 and "--model is not given; --interactive asks" in err
    answers = iter(["test_resnet", "simba-like", "50%"])
    monkeypatch.setattr("typer.prompt", lambda *_, **__: next(answers))
    assert said("init", "--data", photos, "--interactive")[0] == 0
    recipe = load_recipe("recipe.yaml")
    assert recipe.hardware.preset == "simba-like"
    assert recipe.search.limits == {"energy_mj": "50%"}
