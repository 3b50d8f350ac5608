"""`search --dry-run` says what a search would do, and does nothing."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from rich.console import Console
from timm.models.vision_transformer import VisionTransformer

from paretopath import jobs
from paretopath.cli.tables.plan import plan_tables
from paretopath.costs import COST_NAMES
from paretopath.front import load_front
from paretopath.jobs.reuse import MADE_FROM, made_from
from paretopath.recipe import load_recipe
from paretopath.run import Run, default_directory
from paretopath.weights.files import read_state, write_state
from tests.pipeline.cli.command import run_here

Plan = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _nothing_may_be_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(*_: object, **__: object) -> NoReturn:
        raise AssertionError("training may begin")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(jobs, "prepare_weights", trained)
    monkeypatch.setattr("paretopath.jobs.reuse.code_version", lambda: "this code")


def state_of(folder: Path) -> dict[Path, int]:
    """Every file and folder in one, with the time of its last change."""
    return {entry: entry.stat().st_mtime_ns for entry in folder.rglob("*")}


@pytest.fixture
def plan(tmp_path: Path, tiny_recipe: Path, capsys: pytest.CaptureFixture[str]) -> Plan:
    """What a dry run says as JSON; it fails where anything was written."""

    def planned(*arguments: str | Path) -> dict[str, Any]:
        before = state_of(tmp_path)
        given = ("search", tiny_recipe, *arguments, "--dry-run", "--json", "--device", "cpu")
        assert run_here(*given) == 0, capsys.readouterr().err
        assert state_of(tmp_path) == before
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    return planned


def test_a_new_search_is_resolved_and_priced_as_it_would_be(plan: Plan, searched: Path) -> None:
    found = plan("--energy-budget", "60%", "--trials", "9")
    front = load_front(searched)
    assert (found["run"], found["found"]) == ("runs/tiny_energy-60pct", "nothing")
    assert found["decisions"]["exit"] == [1, 2, 3] and found["size"] > 100
    assert set(found["images"]) == {"train", "validation", "test"}
    assert found["images"]["validation"] == front.full.samples
    assert found["full"] == {n: front.full.cost(n) for n in COST_NAMES}
    budget = found["budgets"]["energy_mj"]
    assert budget == pytest.approx(0.6 * front.full.costs["energy_mj"])
    assert found["cheapest"]["energy_mj"] <= budget
    assert found["hardware"] == front.hardware and found["metric"] == front.metric
    assert found["recipe"]["search"]["trials"] == 9
    assert found["recipe"]["launch"]["where"] == "local"
    assert found["weights"]["how"] == "trained" and found["weights"]["epochs"] == 2


def test_a_person_reads_all_of_it_at_80_columns(tiny_recipe: Path) -> None:
    changes = {"search.energy_budget": "60%", "search.workers": 3}
    recipe = load_recipe(tiny_recipe).with_overrides(changes)
    plan = jobs.plan_search(Run(default_directory(recipe), recipe, device="cpu"))
    written = io.StringIO()
    Console(file=written, width=80).print(*plan_tables(plan, width=80))
    text = written.getvalue()
    assert "…" not in text and all(len(line) <= 80 for line in text.splitlines())
    for said in (
        "runs/tiny_energy-60pct (new)",
        "exit: 1, 2, 3",
        "train",
        "10 classes",
        "top-1",
        "trained 2 epochs",
        "magnet-16nm",
        "energy 60%",
        "24 paths by nsga2",
        "12.5, 25, 50 %",
        "3 workers on this machine",
        "models run on cpu",
    ):
        assert said in text


def test_what_cannot_be_searched_is_said_with_the_reason(
    plan: Plan, tiny_recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (
        "{model: convit_tiny, arguments: {img_size: 8, patch_size: 4, in_chans: 1, "
        "num_classes: 10, depth: 6, local_up_to_layer: 0}}"
    )
    tiny_recipe.write_text(
        f"name: tiny\nspace:\n  name: blocks\n  options: {options}\n"
        "task: {name: classification}\ntracking: {mode: disabled}\n"
        "data: {source: digits, mean: 0.3, std: 0.4}\n"
    )
    found = plan()
    why = "does not run narrowed"  # its code takes the heads' channels from its input's
    assert found["left"]["blocks.0.attn"].startswith(why)
    assert {f"blocks.{i}.attn" for i in range(6)} <= set(found["left"])
    assert run_here("search", tiny_recipe, "--dry-run", "--device", "cpu") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"left as it is {', '.join(f'blocks.{i}.attn' for i in range(3))} … " in said
    assert said.count(why) == 1


def test_what_weights_lack_and_how_it_will_be_trained_is_said(
    plan: Plan, tmp_path: Path, tiny_recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = load_recipe(tiny_recipe).space.options["arguments"]
    file = tmp_path / "mine.pth"
    torch.save(VisionTransformer(**arguments | {"num_classes": 4}).state_dict(), file)
    tiny_recipe.write_text(f"{tiny_recipe.read_text()}weights: {file}\n")
    weights = plan()["weights"]
    assert weights["how"] == "loaded" and weights["epochs"] == 2 and weights["trains"] == "new"
    assert {name.split(".")[1] for name in weights["new"]} == {"exits_1", "exits_2", "exits_3"}
    assert run_here("search", tiny_recipe, "--dry-run", "--device", "cpu") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "they lack exits_1.head.vit.fc_norm.weight," in said
    assert "these alone trained 2 epochs on 1,078 images" in said


@pytest.mark.parametrize("how", ["kept", "taken", "moved", "loaded"])
def test_where_weights_will_come_from_is_said(
    how: str, plan: Plan, searched: Path, tmp_path: Path, tiny_recipe: Path
) -> None:
    state = read_state(searched / "weights.safetensors")
    recipe = load_recipe(tiny_recipe)
    options: tuple[str, ...] = ()
    if how == "loaded":
        file = tmp_path / "mine.pth"
        arguments = recipe.space.options["arguments"]
        torch.save(VisionTransformer(**arguments).state_dict(), file)
        text = tiny_recipe.read_text().replace("exits: [1, 2, 3]", "exits: [3]")
        tiny_recipe.write_text(f"{text}weights: {file}\n")
        expected = {"how": "loaded", "origin": str(file)}
    else:
        own = Run(Path("runs/tiny"), recipe, device="cpu")
        folder = tmp_path / "runs" / ("older" if how == "taken" else "tiny")
        shutil.copytree(searched, folder)
        write_state(folder / "weights.safetensors", state, {MADE_FROM: str(made_from(own))})
        options = ("--fresh",) if how == "moved" else ()
        expected = {"how": "kept" if how == "kept" else "taken"}
    found = plan(*options)
    assert found["weights"] | expected == found["weights"]
    states = {"kept": "a run", "moved": "a run to move"}
    assert found["found"] == states.get(how, "nothing")
    assert found["trials_known"] == (24 if how == "kept" else 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--energy-budget", "0.1%"], "no path of the space fits"),
        (["--seed", "5"], r"search.seed is 0, but now it is 5"),
        (["--storage", "postgresql://nobody@127.0.0.1:1/x"], "can't be used"),
    ],
)
def test_what_a_search_is_refused_for_its_dry_run_is_too(
    arguments: list[str],
    said: str,
    searched: Path,
    tmp_path: Path,
    tiny_recipe: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    directory = tmp_path / "run"
    if "--seed" in arguments:
        shutil.copytree(searched, directory)
    before = state_of(tmp_path)
    given = (*arguments, "--run-dir", directory, "--dry-run", "--device", "cpu")
    assert run_here("search", tiny_recipe, *given) == 2
    assert said in capsys.readouterr().err
    assert state_of(tmp_path) == before


def test_a_database_that_is_a_file_is_not_made(plan: Plan) -> None:
    found = plan("--storage", "sqlite:///studies.db")
    assert found["recipe"]["search"]["storage"] == "sqlite:///studies.db"
