"""Paths re-solved on more images: on the front, as deployed, and done once."""

import shutil
from pathlib import Path

import pytest
import torch

from paretopath import jobs
from paretopath.cli.tables.front import front_table
from paretopath.deploy.dynamic_model import DynamicModel
from paretopath.errors import RunDirectoryError
from paretopath.front import Front
from paretopath.jobs.retraining.plan import RetrainJob
from paretopath.recipe import load_recipe
from paretopath.run import Run, build_scoring, build_space, load_model

MODE = "closed_form"


@pytest.fixture
def run(searched: Path, tmp_path: Path) -> Run:
    shutil.copytree(searched, tmp_path / "run")
    return Run.open(tmp_path / "run", device="cpu")


def solve(run: Run) -> tuple[RetrainJob, Front]:
    (job,) = jobs.plan_retraining(run, selection="all", mode=MODE)
    return job, jobs.collect(run, MODE, jobs.retrain(run, job))


def test_every_path_selected_is_measured_and_what_it_got_lies_beside_the_weights(run: Run) -> None:
    before = run.weights_file.read_bytes()
    job, front = solve(run)
    assert job.name == MODE and len(job.paths) == len(front.points)
    assert all(MODE in point.retrained for point in front.points)
    titles = [str(column.header) for column in front_table(front, front.points).columns]
    assert any("retrained\nclosed form" in title for title in titles)
    assert run.weights_file.read_bytes() == before
    model = load_model(build_space(run.recipe), run.weights_file, run)
    for path in job.paths:
        own = run.own(MODE)[path]
        assert own is not None and model.steps(path, own)  # its names are the model's


def test_it_is_not_done_again_unless_more_images_are_asked_for(run: Run) -> None:
    job, _ = solve(run)
    result = job.folder / "result.json"
    written = result.stat().st_mtime_ns
    solve(run)
    assert result.stat().st_mtime_ns == written
    again = Run(run.directory, run.recipe.with_overrides({"retrain.images": 40}), device="cpu")
    longer = Run(run.directory, run.recipe.with_overrides({"retrain.epochs": 3}), device="cpu")
    solve(longer)
    assert result.stat().st_mtime_ns == written
    solve(again)
    assert result.stat().st_mtime_ns != written


def test_it_deploys_where_it_is_the_better_and_its_files_are_needed(run: Run) -> None:
    _, front = solve(run)
    dynamic = DynamicModel.load(run.directory)
    assert len({id(model) for model in dynamic.models.values()}) == 1  # one set of weights
    for option in dynamic.options:
        found = option.point.retrained.get(MODE)
        if option.weights == MODE:
            assert found is not None and found.accuracy >= option.point.accuracy
    alone = DynamicModel.load(run.directory, weights=[MODE])
    point = alone.points[0]
    images = torch.randn(3, 1, 8, 8)
    own = run.own(MODE)[point.path]
    model = load_model(build_space(run.recipe), run.weights_file, run)
    with model.active(point.path, own), torch.inference_mode():
        torch.testing.assert_close(alone(images, energy_mj=point.energy_mj), model(images))
    run.own(MODE).file(point.path).unlink()
    with pytest.raises(RunDirectoryError, match=r"re-solved for it, but .*closed_form.* not there"):
        DynamicModel.load(run.directory, weights=[MODE])
    assert front.points


def test_evaluation_from_disk_gives_the_same_accuracies(run: Run) -> None:
    _, front = solve(run)
    rows = [row for row in jobs.evaluate_run(run) if row["weights"] == MODE]
    assert {row["id"]: row["validation"].value for row in rows} == {
        point.id: point.retrained[MODE].accuracy for point in front.points
    }


def test_separate_training_starts_from_the_repaired_path(run: Run) -> None:
    from paretopath.jobs.retraining.fitting import fresh

    space = build_space(run.recipe)
    point = run.front().points[0]
    student = fresh(run, space, RetrainJob(run.directory, "separate", (point.path,)))
    scoring = build_scoring(run, space)
    assert scoring.score(student, "validation").value == point.accuracy


def test_separate_training_starts_from_the_calibrated_weights_if_asked_to(run: Run) -> None:
    from paretopath.jobs.retraining.fitting import fresh

    run = Run(
        run.directory, run.recipe.with_overrides({"retrain.start": "compensated"}), device="cpu"
    )
    space = build_space(run.recipe)
    path = space.smallest
    student = fresh(run, space, RetrainJob(run.directory, "separate", (path,)))
    slice_ = load_model(space, run.weights_file, run).extract(path)
    for name, tensor in slice_.state_dict().items():
        assert torch.equal(student.state_dict()[name], tensor)


def test_a_run_of_before_repair_is_not_repaired(run: Run) -> None:
    text = run.recipe_file.read_text()
    assert "repair: true" in text
    run.recipe_file.write_text(text.replace("  repair: true\n", ""))
    assert load_recipe(run.recipe_file).calibration.repair
    old = Run.open(run.directory, device="cpu")
    assert not old.recipe.calibration.repair
    shutil.rmtree(old.own().folder)
    DynamicModel.load(old.directory)
    jobs.evaluate_run(old)
    assert not old.own().folder.exists()
