"""What given weights lack is trained before a search, or the search is refused."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import search_spaces
from paretopath import jobs
from paretopath.elastic.exits import exit_paths
from paretopath.errors import CheckpointError, RecipeError
from paretopath.front import load_front
from paretopath.jobs.base import Learning, initial_model
from paretopath.jobs.starting import resolve
from paretopath.recipe import Recipe, TrainSettings, load_recipe
from paretopath.run import Run, assemble, build_space, load_model
from paretopath.tasks.classification.task import Classification
from paretopath.tasks.task import Score
from paretopath.training.epoch import Epoch
from paretopath.training.new_parts import NewPartsTraining
from paretopath.weights.files import write_state
from search_spaces.exit_heads import OWN_HEADS
from tests.pipeline.vit_family import MEMBERS

CHANGES = {
    "calibration.order": "magnitude",  # so that weights can be compared
    "calibration.compensate": False,
    "train.epochs": 3,
    "train.lr": 0.05,
}
Start = Callable[..., tuple[Run, dict[str, Tensor]]]


def state_of(run: Run) -> dict[str, Tensor]:
    return load_model(build_space(run.recipe), run.weights_file, run).state_dict()


@pytest.fixture(autouse=True)
def _nothing_is_taken_from_a_run_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paretopath.jobs.reuse.code_version", lambda: None)


@pytest.fixture
def start(tiny_recipe: Path, tmp_path: Path) -> Start:
    """A run of the tiny recipe with weights of three classes, and its model's state at first."""

    def started(name: str = "run", **changes: Any) -> tuple[Run, dict[str, Tensor]]:
        recipe = load_recipe(tiny_recipe)
        state = build_space(recipe).reference().state_dict()  # type: ignore[attr-defined]
        smaller = state | {"head.weight": torch.zeros(3, 16), "head.bias": torch.zeros(3)}
        if not (tmp_path / "three.pth").exists():
            torch.save(smaller, tmp_path / "three.pth")
        changes = {key.replace("__", "."): value for key, value in changes.items()}
        weights = {"weights": str(tmp_path / "three.pth")}
        recipe = recipe.with_overrides({**CHANGES, **weights, **changes})
        run = Run.start(tmp_path / name, recipe, device="cpu")
        return run, initial_model(build_space(recipe), recipe).state_dict()

    return started


def moved(before: dict[str, Tensor], run: Run) -> set[str]:
    """The units whose weights are others than before, up to the order of channels."""
    after = state_of(run)
    return {
        name.split(".")[1]
        for name, tensor in before.items()
        if not torch.allclose(tensor.flatten().sort()[0], after[name].flatten().sort()[0])
    }


def test_exits_and_a_classifier_for_other_classes_are_trained_on_the_frozen_rest(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    run, before = start()
    epochs: list[Epoch] = []
    with caplog.at_level(logging.WARNING):
        jobs.prepare_weights(run, on_epoch=epochs.append)
    assert moved(before, run) == {"exits_1", "exits_2", "exits_3"}
    norm = "units.exits_3.head.vit.fc_norm.weight"  # it came with the weights
    assert torch.equal(state_of(run)[norm], before[norm])
    [line] = [r.getMessage() for r in caplog.records if "trained first" in r.getMessage()]
    assert "no exits but the last" in line and "a classifier of 3 classes" in line
    assert "exits_1.head.vit.fc_norm.weight" in line and "3 epochs on the frozen rest" in line
    assert epochs[-1].number == 3 and len(epochs[-1].metrics) == 3  # an accuracy for each exit
    assert min(epochs[-1].metrics.values()) > 0.15  # ten classes


def test_exits_alone_are_new_where_the_classifier_fits(start: Start, tmp_path: Path) -> None:
    run, _ = start()
    whole = build_space(run.recipe).reference().state_dict()  # type: ignore[attr-defined]
    torch.save(whole, tmp_path / "ten.pth")
    run, before = start("fits", weights=str(tmp_path / "ten.pth"))
    jobs.prepare_weights(run)
    assert moved(before, run) == {"exits_1", "exits_2"}


def test_features_that_are_kept_train_as_those_computed_in_every_epoch(start: Start) -> None:
    phases: list[str] = []
    kept, _ = start("kept")
    jobs.prepare_weights(kept, on_phase=lambda title, *_: phases.append(title))
    assert "running what is frozen" in phases
    computed, _ = start("computed", accuracy__feature_mb=0)
    jobs.prepare_weights(computed)
    for name, tensor in state_of(kept).items():
        torch.testing.assert_close(state_of(computed)[name], tensor, rtol=1e-4, atol=1e-5)


def test_exits_may_learn_from_the_last_one_which_stays_as_it_is(tiny_recipe: Path) -> None:
    model = build_space(load_recipe(tiny_recipe)).build()
    new = [name for name, _ in model.named_parameters() if ".exits_1." in name]
    images, labels = torch.randn(6, 1, 8, 8), torch.arange(6)

    def loss(distil: bool, targets: Tensor) -> Tensor:
        task = Classification(distillation_weight=1.0)  # the teacher alone
        paths = exit_paths(model)
        module = NewPartsTraining(model, paths, new, TrainSettings(), task, distil=distil)
        return module.training_step((images, targets), 0)

    taught = loss(True, labels)
    assert torch.equal(taught, loss(True, labels.flip(0)))
    assert not torch.equal(loss(False, labels), loss(False, labels.flip(0)))
    taught.backward()
    learnt = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learnt == set(new)


def test_augmented_images_keep_no_features(start: Start) -> None:
    phases: list[str] = []
    affine = [{"name": "random_affine", "degrees": 10}]
    run, before = start(data__transforms={"train": affine})
    jobs.prepare_weights(run, on_phase=lambda title, *_: phases.append(title))
    assert "running what is frozen" not in phases
    assert moved(before, run) == {"exits_1", "exits_2", "exits_3"}


def test_everything_is_trained_where_a_recipe_says_so(start: Start) -> None:
    run, before = start(train__parameters="all")
    jobs.prepare_weights(run)
    assert moved(before, run) == {name.split(".")[1] for name in before}


def test_weights_that_lack_something_are_refused_where_nothing_is_trained(start: Start) -> None:
    run, _ = start()
    recipe = run.recipe.with_overrides({"train.parameters": "none"})
    none = Run(run.directory.with_name("none"), recipe, device="cpu")
    with pytest.raises(CheckpointError, match=r"a classifier of 3 classes.*legal: new, all"):
        resolve(none)
    assert not none.directory.exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(
    start: Start, tmp_path: Path, value: float
) -> None:
    run, _ = start()
    state = torch.load(tmp_path / "three.pth")
    state["blocks.1.mlp.fc1.weight"][0, 0] = value
    torch.save(state, tmp_path / "three.pth")
    with pytest.raises(CheckpointError, match=r"finite, but .*three\.pth.*blocks_1.*fc1"):
        initial_model(build_space(run.recipe), run.recipe)


def test_a_training_that_was_killed_goes_on(start: Start) -> None:
    whole, _ = start("whole", train__epochs=2)
    jobs.prepare_weights(whole)
    run, _ = start("killed", train__epochs=2)

    def kill(epoch: Epoch) -> None:
        if epoch.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jobs.prepare_weights(run, on_epoch=kill)
    heard: list[int] = []
    jobs.prepare_weights(run, on_epoch=lambda epoch: heard.append(epoch.number))
    assert heard == [2]
    for name, tensor in state_of(whole).items():
        torch.testing.assert_close(state_of(run)[name], tensor, rtol=1e-4, atol=1e-5)


def test_each_model_of_a_family_learns_what_its_own_weights_lack(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "name": "family",
        "space": {"name": "family", "options": {"members": MEMBERS}},
        "data": {"source": "digits", "batch_size": 512, "workers": 0},
        "calibration": {"order": "magnitude", "compensate": False},
        "train": {"epochs": 1, "warmup_epochs": 0.1},
    }
    space = build_space(Recipe.model_validate(values))
    weights = {}
    for name, member in space.members.items():  # type: ignore[attr-defined]
        state = member.reference().state_dict()
        if name == "large":
            state = {key: t for key, t in state.items() if not key.startswith("head.")}
        weights[name] = str(tmp_path / f"{name}.pth")
        torch.save(state, weights[name])
    recipe = Recipe.model_validate(values | {"weights": weights})
    run = Run.start(tmp_path / "run", recipe, device="cpu")
    before = initial_model(build_space(recipe), recipe).state_dict()
    jobs.prepare_weights(run)
    exits = {"small_exits_1", "large_exits_1", "large_exits_2", "large_exits_4"}
    assert moved(before, run) == exits


def test_weights_of_another_run_lack_nothing(start: Start, searched: Path) -> None:
    run, before = start(weights=str(searched / "weights.safetensors"))
    jobs.prepare_weights(run, on_epoch=lambda _: pytest.fail("trained"))
    assert not moved(before, run)
    parts = assemble(run)
    model = load_model(parts.space, run.weights_file, run)
    [score] = parts.images.evaluator(model, "validation")([parts.space.full])
    assert isinstance(score, Score)
    assert score.value == pytest.approx(load_front(searched).full.accuracy)


def test_weights_of_another_runs_space_are_refused_by_name(start: Start, tmp_path: Path) -> None:
    other = search_spaces.create("vit", arguments={"img_size": 8, "patch_size": 4, "depth": 1})
    write_state(tmp_path / "other.safetensors", other.build().state_dict())
    with pytest.raises(CheckpointError, match=r"other\.safetensors does not fit the model: it la"):
        start(weights=str(tmp_path / "other.safetensors"))


def test_a_search_takes_the_trained_head(start: Start) -> None:
    run, _ = start(search__trials=4, search__generation=4)
    parts = resolve(run)
    assert parts.base is not None
    assert Learning.of(parts.base, run.recipe).new
    jobs.prepare_weights(run, parts)
    front = jobs.search_run(run, parts)
    model = load_model(parts.space, run.weights_file, run)
    [score] = assemble(run).images.evaluator(model, "validation")([parts.space.full])
    assert isinstance(score, Score)
    assert front.full.accuracy == pytest.approx(score.value) and score.value > 0.15


def whole_weights(tmp_path: Path, recipe: Recipe) -> str:
    """A file with weights of all classes; its exits are missing."""
    torch.manual_seed(3)
    state = build_space(recipe).reference().state_dict()  # type: ignore[attr-defined]
    torch.save(state, tmp_path / "whole.pth")
    return str(tmp_path / "whole.pth")


@pytest.mark.parametrize("mode", ["same", "fine_tune", "scratch"])
def test_exits_begin_as_the_recipe_says(tiny_recipe: Path, tmp_path: Path, mode: str) -> None:
    recipe = load_recipe(tiny_recipe)
    changes = {**CHANGES, "weights": whole_weights(tmp_path, recipe), "exits.weights": mode}
    recipe = recipe.with_overrides(changes)
    begun = initial_model(build_space(recipe), recipe)
    heads = [begun.units[f"exits_{e}"].head.vit.head.weight for e in (1, 2, 3)]
    are_copies = [torch.equal(head, heads[-1]) for head in heads[:-1]]
    assert are_copies == [mode != "scratch"] * 2
    run = Run.start(tmp_path / "run", recipe, device="cpu")
    jobs.prepare_weights(run)
    expected = set() if mode == "same" else {"exits_1", "exits_2"}
    assert moved(begun.state_dict(), run) == expected


@pytest.mark.parametrize(
    ("kind", "mode"), zip(OWN_HEADS, ("same", "scratch", "fine_tune", "same"), strict=True)
)
def test_exits_with_heads_of_their_own_learn_from_a_recipe(
    tiny_recipe: Path, tmp_path: Path, kind: str, mode: str
) -> None:
    recipe = load_recipe(tiny_recipe)
    changes = {**CHANGES, "weights": whole_weights(tmp_path, recipe), "exits.weights": mode}
    options = recipe.space.options | {"exit_head": kind}
    recipe = recipe.with_overrides({**changes, "space.options": options, "train.epochs": 1})
    begun = initial_model(build_space(recipe), recipe).state_dict()
    run = Run.start(tmp_path / "run", recipe, device="cpu")
    jobs.prepare_weights(run)  # none of them is a copy, so there is nothing that could stay one
    assert moved(begun, run) == {"exits_1", "exits_2"}


def test_exits_are_solved_in_closed_form(
    tiny_recipe: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = load_recipe(tiny_recipe)
    weights = whole_weights(tmp_path, recipe)
    recipe = recipe.with_overrides(
        {**CHANGES, "weights": weights, "exits.fit": "closed_form", "train.epochs": 3}
    )
    before = initial_model(build_space(recipe), recipe).state_dict()
    run = Run.start(tmp_path / "run", recipe, device="cpu")
    epochs: list[Epoch] = []
    with caplog.at_level(logging.WARNING):
        jobs.prepare_weights(run, on_epoch=epochs.append)
    assert not epochs
    assert "solved first, by least squares (exits.fit)" in caplog.text
    assert moved(before, run) == {"exits_1", "exits_2"}
    parts = assemble(run)
    model = load_model(parts.space, run.weights_file, run)
    path = parts.space.canonical({"exit": 1})
    [score] = parts.images.evaluator(model, "validation")([path])
    assert isinstance(score, Score) and score.value > 0.3  # the trunk is random


def test_exits_that_would_stay_copies_of_nothing_are_refused(start: Start) -> None:
    with pytest.raises(CheckpointError, match=r"exits\.weights is same.*legal: fine_tune, scratch"):
        start(exits__weights="same")
    with pytest.raises(RecipeError, match=r"exits\.fit closed_form needs weights"):
        start("other", weights=None, exits__fit="closed_form")
