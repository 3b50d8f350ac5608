"""A small run that every test of the whole way shares."""

import os
from pathlib import Path

import pytest

# before torch is imported, and for the processes that tests start: workers share the cores
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _WORKERS)))


TINY = """
name: tiny
space:
  name: vit
  options:
    arguments: {img_size: 8, patch_size: 2, in_chans: 1, embed_dim: 16, depth: 3, num_heads: 2,
                num_classes: 10, global_pool: avg, class_token: false}
    exits: [1, 2, 3]
    skippable: [1, 2]
    mlp_ratios: [0.5, 1.0]
data: {source: digits, mean: 0.305, std: 0.376, batch_size: 128, workers: 0}
train: {epochs: 2, lr: 0.004, warmup_epochs: 0.5}
retrain: {epochs: 2, warmup_epochs: 0.5}
search: {trials: 24, sampler: nsga2, generation: 8}
tracking: {mode: disabled}
"""


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> Path:
    """The recipe file of a search that takes a second."""
    file = tmp_path / "tiny.yaml"
    file.write_text(TINY)
    return file


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with weights, study and front: read it, copy it, don't change it."""
    from paretopath import jobs
    from paretopath.recipe import load_recipe
    from paretopath.run import Run

    folder = tmp_path_factory.mktemp("searched")
    recipe = folder / "tiny.yaml"
    recipe.write_text(TINY)
    run = Run.start(folder / "run", load_recipe(recipe), device="cpu")
    jobs.prepare_weights(run)
    jobs.search_run(run)
    return run.directory
