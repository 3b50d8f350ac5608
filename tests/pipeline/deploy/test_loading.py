"""What is loaded of a run: its directory's files alone, and for each path its best weights."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from paretopath import jobs
from paretopath.deploy.dynamic_model import DynamicModel
from paretopath.errors import InvalidValueError, RunDirectoryError
from paretopath.files import CHECKSUM
from paretopath.front import Front, Point, Retrained, TrialRecord
from paretopath.recipe import Recipe
from paretopath.run import Run, build_space, load_model, open_images
from paretopath.weights.files import write_state

ROOT = Path(__file__).parents[3]
NOT_NEEDED = {
    "PIL",
    "datasets",
    "huggingface_hub",
    "optuna",
    "pandas",
    "paretopath.calibration",
    "paretopath.cost",
    "paretopath.data",
    "paretopath.jobs",
    "paretopath.search",
    "paretopath.showing",
    "pytorch_lightning",
    "scipy",
    "sklearn",
    "timm",
    "torch_pruning",
    "torchmetrics",
    "torchvision",
    "transformers",
    "wandb",
}


@pytest.fixture
def run(searched: Path, tmp_path: Path) -> Run:
    shutil.copytree(searched, tmp_path / "run")
    return Run.open(tmp_path / "run", device="cpu")


def retrained_in_part(run: Run, better: float, worse: float) -> Front:
    """The run after a shared retraining of two paths and the full one: the first won that much
    accuracy, the others lost.
    """
    front = run.front()
    model = load_model(build_space(run.recipe), run.weights_file, run)
    with torch.no_grad():
        model.chain[0].vit.pos_embed.mul_(1.001)  # type: ignore[union-attr, operator]
    write_state(run.retrained_dir("shared") / "weights.safetensors", model.state_dict())
    first, last = front.points[0], front.points[-1]
    changed = [
        replace(first, retrained={"shared": Retrained(first.accuracy + better, 0.01)}),
        replace(last, retrained={"shared": Retrained(last.accuracy - worse, 0.01)}),
    ]
    if front.full.id != last.id:
        accuracy = front.full.accuracy - worse
        changed.append(replace(front.full, retrained={"shared": Retrained(accuracy, 0.01)}))
    results = [{"path": dict(point.path)} for point in changed]
    (run.retrained_dir("shared") / "result.json").write_text(json.dumps({"results": results}))
    front = front.updated(changed)
    front.save(run.front_file)
    return front


def test_paths_that_were_not_retrained_or_lost_by_it_keep_their_searched_weights(run: Run) -> None:
    before = DynamicModel.load(run.directory)
    front = retrained_in_part(run, better=0.001, worse=0.05)
    dynamic = DynamicModel.load(run.directory)
    assert {p.id for p in dynamic.points} == {p.id for p in before.points}
    weights = {option.point.id: option.weights for option in dynamic.options}
    assert weights.pop(front.points[0].id) == "shared"
    assert set(weights.values()) == {"searched"}
    kept = {option.point.id: option.accuracy for option in before.options}
    images = torch.randn(3, 1, 8, 8)
    for point in front.points:
        now = dynamic._chooser({"energy_mj": point.energy_mj})
        assert now.accuracy >= kept[before.choose(energy_mj=point.energy_mj).id]
        out = dynamic(images, energy_mj=point.energy_mj)
        assert dynamic.model is dynamic.models[now.weights]
        static = dynamic.model.extract(dynamic.path)
        with torch.inference_mode():
            torch.testing.assert_close(static(images), out, rtol=1e-5, atol=1e-5)


def own_bytes(dynamic: DynamicModel) -> int:
    return sum(dynamic.own_bytes(point.path) for point in dynamic.points)


def test_two_sets_of_weights_take_the_memory_of_one_and_what_differs(run: Run) -> None:
    searched = DynamicModel.load(run.directory)
    model = load_model(build_space(run.recipe), run.weights_file, run)
    one = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    assert searched.memory_bytes == one + own_bytes(searched) > one
    retrained_in_part(run, better=0.001, worse=0.05)
    dynamic = DynamicModel.load(run.directory)
    changed = dynamic.model.chain[0].vit.pos_embed  # type: ignore[union-attr]
    assert dynamic.memory_bytes == one + changed.nbytes + own_bytes(dynamic)  # type: ignore[operator]
    alone = DynamicModel.load(run.directory, weights=["shared"])
    assert set(alone.models) == {"shared"} and alone.memory_bytes == one
    assert all("shared" in point.retrained for point in alone.points)


def test_weights_of_a_retraining_that_is_not_finished_are_not_deployed(run: Run) -> None:
    retrained_in_part(run, better=0.001, worse=0.05)
    (run.retrained_dir("shared") / "result.json").unlink()
    dynamic = DynamicModel.load(run.directory)
    assert {option.weights for option in dynamic.options} == {"searched"}


def test_weights_that_no_budget_asks_for_are_not_loaded(run: Run) -> None:
    front = run.front()
    retrained_in_part(run, better=0.001, worse=0.05)
    points = {point.id: point for point in (*front.points, front.full)}.values()
    better = [
        replace(p, retrained={"shared": Retrained(min(1.0, p.accuracy + 0.01), 0.01)})
        for p in points
    ]
    front.updated(better).save(run.front_file)
    results = [{"path": dict(point.path)} for point in points]
    (run.retrained_dir("shared") / "result.json").write_text(json.dumps({"results": results}))
    assert set(DynamicModel.load(run.directory).models) == {"shared"}


def test_after_retraining_two_paths_no_budget_deploys_worse(run: Run) -> None:
    before = DynamicModel.load(run.directory)
    (job,) = jobs.plan_retraining(run, selection="count=2", mode="shared")
    jobs.collect(run, "shared", jobs.retrain(run, job))
    dynamic = DynamicModel.load(run.directory)
    data = open_images(run.recipe, build_space(run.recipe))
    (batch,) = data.loader("validation", batch_size=10_000)
    for point in before.points:
        budget = point.energy_mj
        found = [
            (d(batch[0], energy_mj=budget).argmax(1) == batch[1]).double().mean().item()
            for d in (before, dynamic)
        ]
        assert found[1] >= found[0] - 1e-9


def test_a_front_that_knows_no_energy_is_deployed_by_what_it_knows(run: Run) -> None:
    content = json.loads(run.front_file.read_text())
    for record in (content["full"], *content["points"]):
        record["latency_ms"] = record["energy_mj"]
        record["energy_mj"] = None
    content["cost"] = "latency_ms"
    del content[CHECKSUM]
    run.front_file.write_text(json.dumps(content))
    dynamic = DynamicModel.load(run.directory)
    cheapest = dynamic.points[0]
    assert cheapest.latency_ms == min(point.latency_ms or 0.0 for point in dynamic.points)
    dynamic(torch.zeros(1, 1, 8, 8), latency_ms=cheapest.latency_ms)
    assert dynamic.path == cheapest.path
    dynamic(torch.zeros(1, 1, 8, 8), macs=max(point.macs for point in dynamic.points))
    with pytest.raises(InvalidValueError, match=r"got 'energy_mj'; legal: latency_ms"):
        dynamic.choose(energy_mj=1.0)


def test_it_needs_the_recipe_the_front_the_weights_and_what_paths_have_for_themselves(
    run: Run, tmp_path: Path
) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    for file in (run.recipe_file, run.front_file, run.weights_file):
        shutil.copy(file, alone)
    with pytest.raises(RunDirectoryError, match=r"re-solved for it, but .*alone.* is not there"):
        DynamicModel.load(alone)
    shutil.copytree(run.own().folder, alone / run.own().folder.name)
    images = torch.randn(2, 1, 8, 8)
    whole = DynamicModel.load(run.directory)
    torch.testing.assert_close(DynamicModel.load(alone)(images), whole(images))
    (alone / "weights.safetensors").unlink()
    with pytest.raises(RunDirectoryError, match=r"holds no weights to deploy: no .*safetensors"):
        DynamicModel.load(alone)
    with pytest.raises(InvalidValueError, match=r"no weights 'shard'; .* did you mean 'shared'\?"):
        DynamicModel.load(run.directory, weights=["shard"])


def test_loading_imports_nothing_of_the_search_and_no_library_of_another_family(
    tmp_path: Path,
) -> None:
    recipe = Recipe.model_validate(
        {
            "name": "normalised",
            "space": {"name": "tests.pipeline.normalised_space:NormalisedSpace"},
            "data": {"source": "digits"},
        }
    )
    run = Run.start(tmp_path / "run", recipe, device="cpu")
    space = build_space(recipe)
    write_state(run.weights_file, space.build().state_dict())
    trial = TrialRecord(0, "complete", space.full, 0.5, 0.1, 10, {"macs": 9, "params": 9})
    full = Point.of_trial(trial)
    Front.of(
        [full], full=full, recipe=recipe.dump(), hardware="none", metric="top-1", cost="macs"
    ).save(run.front_file)
    code = (
        "import sys; from paretopath import DynamicModel; "
        f"DynamicModel.load({str(run.directory)!r}).choose(macs=9); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    imported = set(done.stdout.split())
    assert "torch" in imported
    assert not NOT_NEEDED & imported


def test_timm_brings_no_experiment_tracker_along() -> None:
    code = "import sys, search_spaces.vit; print('wandb' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"  # nor hidden from who imports it later
