"""A training that diverges: one sentence, no weights, and the same directory goes on, mended."""

import shutil
from pathlib import Path

import pytest

from paretopath import jobs
from paretopath.errors import RunDirectoryError, TrainingError
from paretopath.jobs.retraining.progress import Progress
from paretopath.recipe import load_recipe
from paretopath.run import Run


def test_base_training_that_diverged_begins_anew_with_a_mended_recipe(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(tiny_recipe)
    wild = recipe.with_overrides({"train.lr": 1000.0, "train.epochs": 30})
    with pytest.raises(TrainingError, match=r"diverged: .*; train\.lr must be lower, but is 1000"):
        jobs.prepare_weights(Run.start(tmp_path / "run", wild, device="cpu"))
    assert not (tmp_path / "run" / "weights.safetensors").exists()
    run = Run.start(tmp_path / "run", recipe, device="cpu")
    assert not (tmp_path / "run" / "training").exists()  # of the other learning rate
    jobs.prepare_weights(run)
    assert run.weights_file.is_file()
    with pytest.raises(RunDirectoryError, match=r"train\.lr is 0\.004, but now it is 0\.003"):
        Run.start(run.directory, recipe.with_overrides({"train.lr": 0.003}), device="cpu")


def test_retraining_that_diverged_says_so_and_begins_anew_with_a_mended_recipe(
    searched: Path, tmp_path: Path
) -> None:
    directory = shutil.copytree(searched, tmp_path / "run")
    recipe = load_recipe(directory / "recipe.yaml")
    wild = recipe.with_overrides({"retrain.lr": 1e20, "retrain.epochs": 30})
    run = Run.start(directory, wild, device="cpu")
    (job,) = jobs.plan_retraining(run, selection="knee", mode="shared")
    with pytest.raises(TrainingError, match=r"retrain\.lr must be lower, but is 1e\+20"):
        jobs.retrain(run, job)
    progress = Progress.load(job.folder)
    assert progress is not None
    assert progress.attempts[-1].ended.startswith("failed: TrainingError: training diverged")
    run = Run.start(directory, recipe, device="cpu")
    assert jobs.retrain(run, job)
