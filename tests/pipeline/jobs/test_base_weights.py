"""Base weights that a run trains itself."""

from pathlib import Path

import torch

from paretopath import jobs
from paretopath.recipe import Recipe
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
