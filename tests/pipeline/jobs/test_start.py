"""The start of a search: refused at once, leaving nothing, or whole and held against others."""

import re
import shutil
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from paretopath import cost, jobs
from paretopath.cli.app import main
from paretopath.errors import ParetopathError, RunDirectoryError
from paretopath.recipe import load_recipe
from paretopath.run import Run
from paretopath.search.storage import exclusive
from tests.conftest import TINY

Changes = dict[str, Any]
HARDWARE = Path(cost.__file__).parent / "presets" / "eyeriss_like.yaml"


def write_recipe(folder: Path, changes: Changes) -> Path:
    """The tiny recipe with dotted fields set."""
    values = yaml.safe_load(TINY)
    for field, value in changes.items():
        *sections, last = field.split(".")
        inner = values
        for section in sections:
            inner = inner.setdefault(section, {})
        inner[last] = value
    file = folder / "changed.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def search(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """The exit status of the command, run in this process."""
    words = ["paretopath", "search", *map(str, arguments), "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0  # type: ignore[return-value]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty images of ten classes, in a folder a class."""
    folder = tmp_path_factory.mktemp("pictures")
    pixels = np.random.default_rng(0).integers(0, 255, (40, 8, 8), dtype=np.uint8)
    for number, image in enumerate(pixels):
        place = folder / str(number % 10)
        place.mkdir(exist_ok=True)
        Image.fromarray(image).save(place / f"{number}.png")
    return folder


IMAGES: Changes = {"data": {"source": "imagefolder", "data_dir": "{pictures}", "workers": 0}}
PREDICTOR: Changes = {
    "space": {"name": "ofa_resnet50", "options": {"resolutions": [128]}},
    "data": None,
    "accuracy": {"source": "predictor", "predictor": "absent.pth"},
}
WRONG: dict[str, tuple[Changes, str]] = {
    "preset": ({"hardware.preset": "magnet"}, "magnet-16nm"),
    "hardware file": ({"hardware.hardware": "absent.yaml"}, r"absent\.yaml"),
    "mapping": (
        {"hardware.hardware": "{hardware}", "hardware.mapping": "absent.yaml"},
        "takes no mapping file",
    ),
    "dataset": ({"data": {"source": "digit"}}, "digit"),
    "folder": ({"data": {"source": "imagefolder", "data_dir": "absent"}}, "absent"),
    "column": (IMAGES | {"data.target": "lable"}, "lable.*label"),
    "split": (IMAGES | {"data.splits": {"validation": "vali"}}, "vali"),
    "transform": ({"data.transforms": {"evaluation": [{"name": "resise"}]}}, "resise"),
    "transform's size": (
        {"data.transforms": {"train": [{"name": "random_crop", "size": 6}]}},
        r"\(1, 8, 8\)",
    ),
    "predictor": (PREDICTOR, r"absent\.pth"),
    "weights": ({"weights": "absent.safetensors"}, r"absent\.safetensors"),
    "weights of another model": ({"weights": "{other}"}, "lacks|holds|shape"),
    "task": ({"task": {"name": "classificatoin"}}, "classification"),
    "space": ({"space.name": "vti"}, "vit"),
    "space option": ({"space.options.exit": [1]}, "exit"),
    "restriction": ({"space.restrict": {"exitt": 1}}, "exitt"),
    "path": ({"search.paths": ["absent.json"]}, r"absent\.json"),
    "budget": ({"search.energy_budget": "0.1%"}, "fits"),
    "launch": ({"launch.where": "slurm"}, "SLURM|sbatch"),
    "storage": ({"search.storage": "postgres://host/studies"}, "postgresql"),
    "database": ({"search.storage": "postgresql://nobody@127.0.0.1:1/x"}, "can't be used"),
    "extra": ({"hardware.model": "mapper"}, r"paretopath\[zigzag\]"),
}


@pytest.mark.parametrize("field", WRONG)
def test_a_wrong_value_is_refused_at_once_and_leaves_nothing(
    field: str,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def trained(*_: object, **__: object) -> NoReturn:
        raise AssertionError("training may begin")

    def not_installed(name: str) -> NoReturn:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(jobs, "prepare_weights", trained)
    monkeypatch.setattr("paretopath.cost.mapper.version", not_installed)
    if field == "launch":
        monkeypatch.setenv("PATH", "")
    other = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(2)}, other)
    changes, said = WRONG[field]
    places = {"pictures": str(pictures), "hardware": str(HARDWARE), "other": str(other)}
    recipe = write_recipe(tmp_path, _filled(changes, places))
    began = time.process_time()
    status = search(monkeypatch, recipe, "--run-dir", tmp_path / "run")
    assert time.process_time() - began < 15
    *before, sentence = capsys.readouterr().err.splitlines()
    assert status == 2
    assert sentence.startswith("paretopath: ") and not any("Traceback" in b for b in before)
    assert re.search(said, sentence), sentence
    assert not (tmp_path / "run").exists()


def _filled(value: Any, places: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner, places) for key, inner in value.items()}
    return value.format(**places) if isinstance(value, str) else value


def test_a_recipe_that_was_refused_is_mended_and_starts_in_the_same_directory(
    tmp_path: Path,
) -> None:
    wrong = load_recipe(write_recipe(tmp_path, {"weights": "absent.safetensors"}))
    run = Run.start(tmp_path / "run", wrong, device="cpu")  # as before resolving came first
    with pytest.raises(ParetopathError):
        jobs.prepare_weights(run)
    mended = load_recipe(write_recipe(tmp_path, {}))
    with jobs.started(run.directory, mended, device="cpu") as (again, _):
        assert load_recipe(again.recipe_file) == mended


def test_trained_weights_stay_while_what_made_them_is_the_same(
    searched: Path, tmp_path: Path
) -> None:
    run = Run.start(tmp_path / "run", load_recipe(searched / "recipe.yaml"), device="cpu")
    shutil.copy(searched / "weights.safetensors", run.weights_file)
    before = run.weights_file.stat().st_mtime_ns
    budget = run.recipe.with_overrides({"search.energy_budget": "80%", "search.seed": 3})
    with jobs.started(run.directory, budget, device="cpu") as (again, parts):
        jobs.prepare_weights(again, parts)
    assert run.weights_file.stat().st_mtime_ns == before
    other = run.recipe.with_overrides({"train.lr": 0.1})
    with (
        pytest.raises(RunDirectoryError, match=r"train\.lr is 0\.004, but now it is 0\.1"),
        jobs.started(run.directory, other),
    ):
        pass


HOLD = """
import fcntl, sys
with open(sys.argv[1] + "/search.lock", "a+") as file:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_directory_that_is_searched_is_left_alone(tiny_recipe: Path, tmp_path: Path) -> None:
    directory = tmp_path / "run"
    recipe = load_recipe(tiny_recipe)
    run = Run.start(directory, recipe, device="cpu")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, directory], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout and holder.stdout.readline() == b"held\n"
    try:
        for fresh in (False, True):
            with (
                pytest.raises(RunDirectoryError, match="only one search at a time"),
                jobs.started(directory, recipe, device="cpu", fresh=fresh),
            ):
                pass
        with pytest.raises(RunDirectoryError, match="only one search at a time"):
            jobs.prepare_weights(run)  # training belongs to it
    finally:
        holder.communicate()
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_dir()] == ["run"]
    assert not run.weights_file.exists()


def test_a_fresh_start_that_is_refused_moves_nothing(
    searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = shutil.copytree(searched, tmp_path / "run")
    recipe = write_recipe(tmp_path, {"hardware.preset": "magnet"})
    assert search(monkeypatch, recipe, "--run-dir", directory, "--fresh") == 2
    assert (directory / "front.json").is_file() and not (tmp_path / "run.1").exists()


def test_a_lock_inside_a_lock_of_the_same_process_keeps_the_outer_one(tmp_path: Path) -> None:
    ask = [sys.executable, "-c", HOLD, tmp_path]
    with exclusive(tmp_path):
        with exclusive(tmp_path):
            pass
        done = subprocess.run(ask, input="", capture_output=True, text=True)
        assert "BlockingIOError" in done.stderr
    assert subprocess.run(ask, input="", capture_output=True, text=True).stdout == "held\n"


def test_every_phase_of_a_search_says_how_far_it_is(tmp_path: Path) -> None:
    heard: dict[str, list[tuple[int, int]]] = {}

    def listen(title: str, done: int, total: int) -> None:
        heard.setdefault(title, []).append((done, total))

    recipe = load_recipe(write_recipe(tmp_path, {"search.energy_budget": "90%", "train.epochs": 1}))
    with jobs.started(tmp_path / "run", recipe, device="cpu", on_phase=listen) as (run, parts):
        assert list(heard) == ["opening the data", "tracing units", "pricing layers"]
        jobs.prepare_weights(run, parts, on_phase=listen)
        jobs.search_run(run, parts, on_phase=listen)
    for title in (
        "reading train images",
        "looking at calibration images",
        "calibrating units",
        "reading validation images",
        "scoring the front on test",
        "reading test images",
    ):
        assert title in heard
    for told in heard.values():
        assert told[0][0] < told[0][1] and told[-1][0] == told[-1][1] > 0
    assert heard["looking at calibration images"][-1] == (256, 256)

    heard.clear()
    jobs.evaluate_run(run, on_phase=listen)
    assert set(heard) == {"opening the data", "reading validation images", "reading test images"}
    jobs.sensitivity_run(run, on_phase=listen)
    assert heard["trying every decision alone"] == [(0, 1), (1, 1)]
