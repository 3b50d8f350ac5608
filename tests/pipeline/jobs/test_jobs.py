"""The whole way: base weights, search, retraining, evaluation, and going on after an
interruption.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from paretopath import jobs
from paretopath.errors import InvalidValueError, RunDirectoryError
from paretopath.front import pareto_front, select
from paretopath.recipe import Recipe, load_recipe
from paretopath.run import Run, build_space, build_table, load_model, open_images
from paretopath.tasks.task import Score
from paretopath.weights.files import read_state, write_state
from tests.conftest import TINY

SPACE = build_space(Recipe.model_validate(yaml.safe_load(TINY)))


@pytest.fixture
def run(searched: Path, tmp_path: Path) -> Run:
    """A copy of the searched run, to change."""
    return Run.open(shutil.copytree(searched, tmp_path / "run"), device="cpu")


def test_search_leaves_a_front_of_measured_paths(run: Run) -> None:
    space = build_space(run.recipe)
    front, trials = run.front(), run.trials(space)
    validation = open_images(run.recipe, space).validation
    assert len({t.path for t in trials}) == len(trials) == 24
    complete = [t for t in trials if t.state == "complete"]
    expected = pareto_front(
        [t.accuracy for t in complete], [t.costs["energy_mj"] for t in complete]
    )
    assert {p.id for p in front.points} == {
        t.path.id for t, stays in zip(complete, expected, strict=True) if stays
    }
    assert all(p.samples == len(validation) and p.test_accuracy is not None for p in front.points)
    energies = [p.energy_mj for p in front.points]
    assert energies == sorted(energies)
    assert front.full.path == space.full


def test_accuracies_of_the_front_are_those_of_the_weights_on_disk(run: Run) -> None:
    front = run.front()
    for row in jobs.evaluate_run(run):
        point = front[row["id"]]
        assert row["validation"].value == pytest.approx(point.accuracy)
        assert row["test"].value == pytest.approx(point.test_accuracy)


def test_costs_of_the_front_are_those_of_the_table(run: Run) -> None:
    front = run.front()
    costs = build_table(run, build_space(run.recipe))([p.path for p in front.points])
    assert costs.energy_mj.tolist() == [p.energy_mj for p in front.points]
    assert costs.macs.tolist() == [p.macs for p in front.points]


def test_the_same_search_again_runs_nothing(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = run.front()
    monkeypatch.setattr(
        "paretopath.evaluation.evaluator.Evaluator.__call__", _refuse_new_paths(before)
    )
    jobs.prepare_weights(run)
    assert [t.number for t in run.trials(SPACE)] == list(range(24))


def _refuse_new_paths(front):
    def call(self, paths):
        raise AssertionError("an accuracy was measured twice")

    return call


def test_more_trials_go_on_from_those_that_are_there(run: Run, tiny_recipe: Path) -> None:
    before = run.trials(SPACE)
    more = load_recipe(tiny_recipe).with_overrides({"search.trials": 30})
    longer = Run.start(run.directory, more, device="cpu")
    jobs.search_run(longer)
    assert longer.trials(SPACE)[:24] == before
    assert len(longer.trials(SPACE)) == 30


def test_another_recipe_is_refused_by_its_field(run: Run, tiny_recipe: Path) -> None:
    other = load_recipe(tiny_recipe).with_overrides({"search.seed": 5})
    with pytest.raises(RunDirectoryError, match=r"search\.seed is 0, but now it is 5; .*--fresh"):
        Run.start(run.directory, other)


def test_a_budget_bounds_the_front(tiny_recipe: Path, searched: Path, tmp_path: Path) -> None:
    recipe = load_recipe(tiny_recipe).with_overrides({"search.energy_budget": "50%"})
    run = Run.start(tmp_path / "budget", recipe, device="cpu")
    shutil.copy(searched / "weights.safetensors", run.weights_file)
    front = jobs.search_run(run)
    assert front.points
    assert all(p.energy_mj <= 0.5 * front.full.energy_mj for p in front.points)
    assert (
        sum(not t.costs["energy_mj"] <= 0.5 * front.full.energy_mj for t in run.trials(SPACE)) == 1
    )


@pytest.mark.parametrize("mode", ["shared", "separate"])
def test_retraining_measures_its_paths_again_from_weights_on_disk(run: Run, mode: str) -> None:
    planned = jobs.plan_retraining(run, selection="count=2", mode=mode)
    assert len(planned) == (1 if mode == "shared" else 2)
    heard: list[int] = []
    results = [
        result
        for job in planned
        for result in jobs.retrain(run, job, on_epoch=lambda epoch: heard.append(epoch.number))
    ]
    assert heard == [1, 2] * len(planned)
    front = jobs.collect(run, mode, results)
    retrained = [p for p in (*front.points, front.full) if mode in p.retrained]
    assert len(retrained) == len(results) >= 2
    measured = {r["id"]: r for r in jobs.evaluate_run(run) if r["weights"] == mode}
    for point in retrained:
        assert measured[point.id]["validation"].value == pytest.approx(
            point.retrained[mode].accuracy
        )
        assert measured[point.id]["test"].value == pytest.approx(
            point.retrained[mode].test_accuracy
        )
    assert not list(run.directory.rglob("*.ckpt"))


def test_a_plain_model_whose_layers_got_biases_by_calibration_is_loaded_again(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    text = tiny_recipe.read_text().replace("{img_size", "{proj_bias: false, img_size")
    tiny_recipe.write_text(text.replace("epochs: 2, lr", "epochs: 1, lr"))
    run = Run.start(tmp_path / "unbiased", load_recipe(tiny_recipe), device="cpu")
    jobs.prepare_weights(run)
    searched = load_model(build_space(run.recipe), run.weights_file, run)
    path = searched.space.canonical({"blocks.0.mlp_ratio": 0.5})
    static = searched.extract(path)
    assert "blocks_0.mlp.fc2.bias" in static.state_dict()
    run.retrained_dir("separate", path.id).mkdir(parents=True)
    write_state(run.retrained_dir("separate", path.id) / "weights.safetensors", static.state_dict())
    images = torch.rand(2, 1, 8, 8)
    with torch.inference_mode():
        assert torch.equal(jobs.load_separate(run, searched, path)(images), static(images))


def test_retraining_that_is_done_is_not_done_again(run: Run, monkeypatch) -> None:
    (job,) = jobs.plan_retraining(run, selection="knee", mode="separate")
    first = jobs.retrain(run, job)
    monkeypatch.setattr(
        "paretopath.training.trainer.fit", lambda *a, **k: pytest.fail("trained again")
    )
    assert jobs.retrain(run, job) == first


@pytest.mark.parametrize("augmented", [False, True])
def test_retraining_has_transforms_of_its_own(
    run: Run, augmented: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if augmented:
        run.recipe = run.recipe.with_overrides(
            {"retrain.transforms": [{"name": "random_affine", "degrees": 30}]}
        )
    seen: list[torch.Tensor] = []

    def look(module, loader, **options) -> None:
        seen.extend(images.sum((1, 2, 3)).sort().values for images, _ in (*loader, *loader))
        raise KeyboardInterrupt

    monkeypatch.setattr("paretopath.training.trainer.fit", look)
    (job,) = jobs.plan_retraining(run, selection="knee", mode="shared")
    with pytest.raises(KeyboardInterrupt):
        jobs.retrain(run, job)
    halves = [torch.cat(seen[: len(seen) // 2]), torch.cat(seen[len(seen) // 2 :])]
    once, again = (half.sort().values for half in halves)
    assert torch.allclose(once, again, atol=1e-4) is not augmented


def test_an_interrupted_retraining_goes_on_from_its_checkpoint(run: Run) -> None:
    (job,) = jobs.plan_retraining(run, selection="knee", mode="shared")

    class Stopped(BaseException):
        pass

    heard: list[int] = []
    first = run.recipe.retrain.model_copy(update={"epochs": 4})
    run.recipe = run.recipe.model_copy(update={"retrain": first})

    def stop_after_two(epoch) -> None:
        heard.append(epoch.number)
        if heard == [1, 2]:
            raise Stopped

    with pytest.raises(Stopped):
        jobs.retrain(run, job, on_epoch=stop_after_two)
    jobs.retrain(run, job, on_epoch=stop_after_two)
    assert heard == [1, 2, 2, 3, 4]  # the second epoch was cut short before its checkpoint


def test_shared_training_improves_every_path_it_trains(run: Run) -> None:
    before = run.front()
    settings = run.recipe.retrain.model_copy(update={"epochs": 12, "lr": 3e-3})
    run.recipe = run.recipe.model_copy(update={"retrain": settings})
    (job,) = jobs.plan_retraining(run, selection="count=3", mode="shared")
    front = jobs.collect(run, "shared", jobs.retrain(run, job))
    gains = [
        p.retrained["shared"].accuracy - before[p.id].accuracy for p in front.points if p.retrained
    ]
    assert len(gains) >= 2 and min(gains) > -0.02 and sum(gains) > 0.2


def test_weights_are_plain_tensors_with_the_recipe_and_versions_beside_them(run: Run) -> None:
    assert all(isinstance(t, torch.Tensor) for t in read_state(run.weights_file).values())
    assert load_recipe(run.recipe_file) == run.recipe
    recorded = json.loads(run.environment_file.read_text())
    assert recorded["torch"] == torch.__version__.split("+")[0] and "git" in recorded


def test_a_path_without_finite_accuracy_fails_alone(
    tiny_recipe: Path, searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run.start(tmp_path / "nan", load_recipe(tiny_recipe), device="cpu")
    shutil.copy(searched / "weights.safetensors", run.weights_file)

    def poisoned(*arguments):
        model = load_model(*arguments)
        with torch.no_grad():
            model.units["exits_1"].head.vit.head.bias[0] = float("nan")
        return model

    monkeypatch.setattr("paretopath.jobs.worker.load_model", poisoned)
    front = jobs.search_run(run)
    failed = [t for t in run.trials(SPACE) if t.state == "failed"]
    assert failed and all(t.path["exit"] == 1 and "finite" in (t.failure or "") for t in failed)
    assert all(p.path["exit"] > 1 for p in front.points)
    assert isinstance(jobs.evaluate_run(run, [front.points[0].id])[0]["test"], Score)


def test_a_front_is_priced_anew_by_zigzag_on_the_same_hardware(run: Run) -> None:
    pytest.importorskip("zigzag", reason="needs ZigZag: pip install 'paretopath[zigzag]'")
    points = select(run.front(), "count=1")
    told: list[tuple[int, int]] = []
    rescored = jobs.rescore(run, points, "mapper", on_progress=lambda *now: told.append(now))
    (row,) = rescored.rows
    assert rescored.hardware == "magnet-16nm"
    assert told[-1][0] == told[-1][1] > 0
    assert row["stays"]
    # the search of orders is ZigZag's, so prices are near; see docs/cost_models.md
    assert row["energy_mj_rescored"] == pytest.approx(row["energy_mj"], rel=0.3)
    assert row["latency_ms_rescored"] == pytest.approx(row["latency_ms"], rel=0.6)
    assert list((run.directory / "mapper").rglob("*.json"))  # what it found is kept


def test_a_front_is_priced_anew_on_this_device(run: Run) -> None:
    found = run.front()
    points = list({point.id: point for point in (*found.points, found.full)}.values())
    rescored = jobs.rescore(run, points, "device")
    assert [row["id"] for row in rescored.rows] == [point.id for point in points]
    assert all(row["latency_ms_rescored"] > 0 for row in rescored.rows)
    assert any(row["stays"] for row in rescored.rows)
    assert rescored.rank_correlations["latency_ms"] is not None


def test_latency_is_measured_without_weights(run: Run) -> None:
    run.weights_file.unlink()
    comparison = jobs.measure_run(run, selection="count=2", rounds=2)
    assert all(found.latency_ms > 0 for found in comparison.measurements)


def test_paths_are_not_rescored_by_what_does_not_exist(run: Run) -> None:
    with pytest.raises(InvalidValueError, match=r"mapper or device, but got 'maper'.*'mapper'"):
        jobs.rescore(run, run.front().points, "maper")


def test_a_recipe_names_paths_to_evaluate_first(run: Run, tmp_path: Path) -> None:
    named = [trial.path for trial in run.trials(SPACE)[-2:]]
    file = tmp_path / "path.json"
    file.write_text(json.dumps(dict(named[0])))
    recipe = run.recipe.with_overrides({"search.paths": [str(file), dict(named[1])]})
    other = Run.start(tmp_path / "other", recipe, device="cpu")
    shutil.copy(run.weights_file, other.weights_file)
    jobs.search_run(other)
    assert [trial.path for trial in other.trials(SPACE)[:3]] == [SPACE.full, *named]
