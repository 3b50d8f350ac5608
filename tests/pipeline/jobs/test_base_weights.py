"""Base weights that a run trains itself."""

from pathlib import Path

import torch

from paretopath import jobs
from paretopath.recipe import Recipe, load_recipe
from paretopath.run import Run, build_space, load_model
from tests.pipeline.vit_family import MEMBERS


def test_base_training_trains_every_exit_of_every_member_of_a_family(tmp_path: Path) -> None:
    recipe = Recipe.model_validate(
        {
            "name": "family",
            "space": {"name": "family", "options": {"members": MEMBERS}},
            "data": {"source": "digits", "batch_size": 512, "workers": 0},
            "calibration": {"order": "magnitude", "compensate": False},
            "train": {"epochs": 1, "warmup_epochs": 0.1},
        }
    )
    run = Run.start(tmp_path / "run", recipe, device="cpu")
    space = build_space(recipe)
    torch.manual_seed(recipe.train.seed)  # as the job starts
    start = {unit.name: unit for unit in space.build().chain}
    jobs.prepare_weights(run)
    for unit in load_model(space, run.weights_file, run).chain:
        if unit.is_exit:
            before = dict(start[unit.name].named_parameters())
            moved = [n for n, p in unit.named_parameters() if not torch.equal(p, before[n])]
            assert moved, unit.name


def test_weights_under_a_key_of_a_checkpoint_are_taken(tiny_recipe: Path, tmp_path: Path) -> None:
    recipe = load_recipe(tiny_recipe)
    original = build_space(recipe).reference()  # type: ignore[attr-defined]
    torch.save({"state_dict": original.state_dict()}, tmp_path / "ten.pth")
    right = recipe.with_overrides({"weights": str(tmp_path / "ten.pth#state_dict")})
    run = Run.start(tmp_path / "right", right, device="cpu")
    jobs.prepare_weights(run)
    model = load_model(build_space(recipe), run.weights_file, run)
    images = torch.rand(2, 1, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(model(images), original(images), rtol=1e-4, atol=1e-5)
