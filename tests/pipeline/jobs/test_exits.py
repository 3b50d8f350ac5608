"""Policies: found on validation, tested on other images, put on the front, deployed."""

import base64
import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from paretopath import jobs
from paretopath.deploy import DynamicModel
from paretopath.elastic.exits import exits_on_the_way, steps_with_exits
from paretopath.errors import InvalidValueError, ParetopathError
from paretopath.front import Front
from paretopath.jobs.pictures import load_pictures
from paretopath.recipe import load_recipe
from paretopath.run import Run, assemble, build_searched, build_space, build_table, open_images
from paretopath.showing.tracking.pictures import leaving_of
from tests.conftest import TINY
from tests.pipeline.cli.command import run_here


@pytest.fixture(scope="module")
def left(searched: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Front]:
    """A run with policies: read it, don't change it."""
    folder = shutil.copytree(searched, tmp_path_factory.mktemp("left") / "run")
    return folder, jobs.exits_run(Run.open(folder, device="cpu"))


def test_deployed_policies_do_on_test_images_what_the_front_says(left: tuple[Path, Front]) -> None:
    folder, front = left
    dynamic = DynamicModel.load(folder)
    recipe = Run.open(folder).recipe
    test = open_images(recipe, build_space(recipe)).test
    images, labels = test.__getitems__(range(len(test)))
    assert len(front.policies) > 3 and dynamic.policies == front.policies
    left_early = 0
    for point in front.policies:
        assert point.test is not None and point.test.samples == len(images)
        logits, taken = dynamic.classify_early(images, policy=point)
        where = [dynamic.exits.index(name) for name in point.policy.exits]
        shares = [(taken == number).double().mean().item() for number in where]
        assert shares == pytest.approx(list(point.test.shares), abs=2.5 / len(images))
        accuracy = (logits.argmax(-1) == labels).double().mean().item()
        assert accuracy == pytest.approx(point.test.accuracy, abs=2.5 / len(images))
        left_early += len(point.policy.exits) > 1
    assert left_early > 0


def test_images_that_leave_first_and_last_are_shown(left: tuple[Path, Front]) -> None:
    folder, front = left
    run, dynamic = Run.open(folder, device="cpu"), DynamicModel.load(folder)
    pictures = load_pictures(run)
    assert pictures is not None and pictures["images"] == []
    shown = pictures["leaving"]
    (point,) = [point for point in front.policies if point.id == shown["policy"]]
    validation = open_images(run.recipe, build_space(run.recipe)).validation
    images, labels = validation.__getitems__(range(len(validation)))
    logits, taken = dynamic.classify_early(images, policy=point)
    answers, exits = logits.argmax(1).tolist(), [dynamic.exits[number] for number in taken]
    for when, expected in (("first", taken.min()), ("last", taken.max())):
        left_at = []
        for image in shown[when]:
            *_, (name, (mark,)) = image["found"].items()
            left_at.append(name)
            (there,) = image["truth"]
            found = zip(exits, answers, labels.tolist(), strict=True)
            assert (name, mark["label"], there["label"]) in found
            with Image.open(io.BytesIO(base64.b64decode(image["png"]))) as drawn:
                assert drawn.size == (8, 8)
        assert len(left_at) == 6 and left_at[0] == dynamic.exits[expected]
    (panel,) = leaving_of(pictures, front).values()
    assert len(panel) == 12
    assert leaving_of(pictures, front.with_policies(())) == {}  # of policies that are gone


def test_exits_on_the_way_of_repaired_paths_are_fitted_to_them(left: tuple[Path, Front]) -> None:
    folder, front = left
    dynamic = DynamicModel.load(folder)
    images, solved = torch.randn(9, 1, 8, 8), 0
    for point in front.policies:
        model = dynamic.models[point.weights]
        for exit_ in exits_on_the_way(model, point.path)[:-1]:
            own = model.own.get(exit_.path)
            if own is not None and exit_.step.unit.name in point.policy.exits:
                steps = steps_with_exits(model, point.path, [exit_.step.unit.name])
                state, logits = images, None
                for step in steps[: exit_.after + 1]:
                    logits = step(state)
                    state = state if step.unit.is_exit else logits
                with model.active(exit_.path):
                    assert torch.equal(logits, model(images))
                solved += exit_.step.own is not None
    assert solved > 0


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose search chose policies along with paths: read it, don't change it."""
    folder = tmp_path_factory.mktemp("together")
    budget = TINY.replace("search: {", "search: {energy_budget: 40%, ")
    (folder / "tiny.yaml").write_text(budget + "exits: {search: true}\n")
    run = Run.start(folder / "run", load_recipe(folder / "tiny.yaml"), device="cpu")
    jobs.prepare_weights(run)
    jobs.search_run(run)
    return run.directory


def test_a_search_may_choose_policies_along_with_paths(together: Path) -> None:
    run = Run.open(together, device="cpu")
    front, space = run.front(), build_space(run.recipe)
    trials = run.trials(build_searched(run.recipe, space))
    assert len(trials) == 24
    assert any(name.endswith(".share") for trial in trials for name in trial.path)
    assert all(name in space.positions for point in front.points for name in point.path)
    assert len(front.policies) > 1 and any(len(p.policy.exits) > 1 for p in front.policies)
    jobs.save_report(run)
    dynamic = DynamicModel.load(together)
    test = open_images(run.recipe, space).test
    images, labels = test.__getitems__(range(len(test)))
    for point in front.policies:
        assert point.test is not None
        logits, _ = dynamic.classify_early(images, policy=point)
        accuracy = (logits.argmax(-1) == labels).double().mean().item()
        assert accuracy == pytest.approx(point.test.accuracy, abs=2.5 / len(images))


def test_a_budget_of_a_search_for_both_is_for_what_images_take_on_average(together: Path) -> None:
    front = Run.open(together, device="cpu").front()
    bound = 0.4 * front.cost_of(front.full)
    *policies, whole = front.policies
    assert whole.path == front.full.path and len(whole.policy.exits) == 1
    assert all(point.cost("energy_mj") <= bound for point in policies)
    assert all(front.cost_of(point) <= bound for point in front.points)
    dearer = {point.id for point in front.early_only if front.cost_of(point) > bound}
    assert dearer & {point.path.id for point in policies}  # only some images go to its end
    assert all(point.test_accuracy is not None for point in front.early_only)
    assert front.hypervolume_with_policies >= front.hypervolume


def test_policies_found_in_a_search_are_found_again(together: Path, tmp_path: Path) -> None:
    run = Run.open(shutil.copytree(together, tmp_path / "run"), device="cpu")
    before = run.front().policies
    assert jobs.exits_run(run).policies == before


def test_exits_on_the_way_are_retrained_with_their_path(together: Path, tmp_path: Path) -> None:
    run = Run.open(shutil.copytree(together, tmp_path / "run"), device="cpu")
    point = run.front().early_only[0]
    (job,) = jobs.plan_retraining(run, selection=f"id={point.id}", mode="shared")
    jobs.collect(run, "shared", jobs.retrain(run, job))
    assert "shared" in run.front()[point.id].retrained
    before, after = (
        load_file(file)
        for file in (run.weights_file, run.retrained_dir("shared") / "weights.safetensors")
    )
    moved = {name.split(".")[1] for name in before if not before[name].equal(after[name])}
    assert {"exits_1", "exits_2", "exits_3"} <= moved


def test_a_search_for_policies_without_images_or_exits_is_refused(tmp_path: Path) -> None:
    for change, sentence in (
        (("exits: [1, 2, 3]", "exits: [3]"), "those of VitSpace pass none"),
        (("name: tiny", "name: tiny\naccuracy: {source: predictor, predictor: p.pth}"), "images"),
    ):
        (tmp_path / "tiny.yaml").write_text(TINY.replace(*change) + "exits: {search: true}\n")
        with pytest.raises(ParetopathError, match=sentence):
            assemble(Run(tmp_path / "run", load_recipe(tmp_path / "tiny.yaml"), device="cpu"))


def test_expected_energy_is_what_images_that_leave_there_take(left: tuple[Path, Front]) -> None:
    folder, front = left
    run = Run.open(folder)
    table = build_table(run, build_space(run.recipe))
    seen = 0
    for point in front.policies:
        full = {unit.unit: unit.costs["energy_mj"] for unit in table.breakdown(point.path)}
        expected, way = 0.0, 0.0
        shares = dict(zip(point.policy.exits, point.validation.shares, strict=True))
        early = {
            unit.unit: unit.costs["energy_mj"]
            for name in point.policy.exits[:-1]
            for unit in table.breakdown({**point.path, "exit": int(name.split(".")[1])})
        }
        order = [name for i in range(3) for name in (f"blocks.{i}", f"exits.{i + 1}")]
        for name in ("stem", *order):
            if name in full or name in shares:
                way += full.get(name, early.get(name, 0.0))
                expected += shares.get(name, 0.0) * way
        assert point.cost("energy_mj") == pytest.approx(expected)
        assert point.validation.cost == pytest.approx(expected)
        seen += len(shares) > 1
    assert seen


def test_a_budget_picks_the_policy_that_is_promised_to_lose_least(
    left: tuple[Path, Front],
) -> None:
    dynamic = DynamicModel.load(left[0])
    images = torch.randn(5, 1, 8, 8)
    for point in dynamic.policies:
        chosen = dynamic.choose_policy(energy_mj=point.cost("energy_mj"))
        fitting = [p for p in dynamic.policies if p.cost("energy_mj") <= point.cost("energy_mj")]
        assert chosen.promised_loss == min(p.promised_loss for p in fitting)
        logits, taken = dynamic.classify_early(images, energy_mj=point.cost("energy_mj"))
        again, where = dynamic.classify_early(images, policy=chosen)
        assert torch.equal(logits, again) and torch.equal(taken, where)
    assert dynamic.choose_policy(max_loss=0.02).promised_loss <= 0.02
    with pytest.raises(InvalidValueError, match="by max_loss or by a budget, but got both"):
        dynamic.choose_policy(max_loss=0.02, energy_mj=1.0)
    with pytest.raises(InvalidValueError, match="the least that any needs is"):
        dynamic.classify_early(images, energy_mj=1e-9)
    with pytest.raises(InvalidValueError, match="by a policy or by a budget, but got several"):
        dynamic.classify_early(images, threshold=0.5, energy_mj=1.0)


@pytest.mark.slow
def test_compiled_units_and_static_paths_give_the_same(left: tuple[Path, Front]) -> None:
    generator = torch.Generator().manual_seed(0)
    dynamic, images = DynamicModel.load(left[0]), torch.randn(9, 1, 8, 8, generator=generator)
    asked = [point for point in dynamic.policies if len(point.policy.exits) > 1][:2]
    before = [dynamic.classify_early(images, policy=point) for point in asked]
    static = dynamic.model.extract(dynamic.model.space.full)
    whole = torch.compile(static, backend="eager", fullgraph=True)
    assert torch.allclose(whole(images), static(images), atol=1e-6)
    for unit in dynamic.model.chain:
        unit.compile(backend="eager", dynamic=True)
    for point, (logits, taken) in zip(asked, before, strict=True):
        again, where = dynamic.classify_early(images, policy=point)
        assert torch.allclose(again, logits, atol=1e-5) and torch.equal(where, taken)


def test_without_policies_a_budget_says_how_to_get_some(searched: Path) -> None:
    with pytest.raises(InvalidValueError, match="`paretopath exits RUN` finds them"):
        DynamicModel.load(searched).classify_early(torch.randn(2, 1, 8, 8), energy_mj=1.0)


def test_policies_go_with_the_weights_that_they_were_found_with(
    left: tuple[Path, Front], tmp_path: Path
) -> None:
    run = Run.open(shutil.copytree(left[0], tmp_path / "run"), device="cpu")
    assert jobs.search_run(run).policies == left[1].policies  # nothing was retrained
    jobs.collect(run, "separate", [])
    assert run.front().policies == left[1].policies


def test_the_command_finds_policies_once_and_then_chooses_among_them(
    searched: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(searched, tmp_path / "run")
    assert run_here("exits", run, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    records = shown["policies"]
    energies = [record["energy_mj"] for record in records]
    assert energies == sorted(energies) and len(records) > 3
    for record in records:
        assert sum(record["shares"]) == pytest.approx(1)
        assert len(record["shares"]) == len(record["exits"]) == len(record["thresholds"]) + 1
        assert 0 <= record["test_accuracy"] <= 1
    file = run / "front.json"
    before = file.stat().st_mtime_ns
    assert run_here("exits", run, "--energy-budget", "60%", "--json") == 0
    (chosen,) = json.loads(capsys.readouterr().out)["policies"]
    assert chosen in records and chosen["energy_mj"] <= 0.6 * shown["full"]["energy_mj"]
    assert run_here("exits", run, "--max-loss", "3") == 0
    assert "saved" in capsys.readouterr().out
    assert file.stat().st_mtime_ns == before
    assert "Leaving early" in (run / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--max-loss", "1", "--energy-budget", "60%"], "can't be combined"),
        (["--max-loss", "101"], "must lie in [0, 100] points, but got 101"),
        (["--energy-budget", "60"], "a budget must be a share of the full path"),
        (["--energy-budget", "1nJ"], "no policy keeps to a budget of 1.00 nJ"),
    ],
)
def test_bounds_that_cannot_be_are_one_sentence(
    left: tuple[Path, Front],
    arguments: list[str],
    sentence: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run_here("exits", left[0], *arguments) == 2
    assert sentence in capsys.readouterr().err.replace("\n", " ")


def test_shared_retraining_says_that_policies_are_gone_and_keeps_those_found_after_it(
    left: tuple[Path, Front], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(left[0], tmp_path / "run")
    run = Run.open(tmp_path / "run", device="cpu")
    overrides = {"retrain.epochs": 1, "retrain.warmup_epochs": 0.0}
    run = Run(run.directory, run.recipe.with_overrides(overrides), device="cpu")

    def retrained() -> Front:
        (job,) = jobs.plan_retraining(run, selection="knee", mode="shared")
        return jobs.collect(run, "shared", jobs.retrain(run, job))

    assert not retrained().policies
    assert f"paretopath exits {run.directory} finds them anew" in caplog.text
    caplog.clear()
    anew = jobs.exits_run(run)
    assert anew.policies and retrained().policies == anew.policies
    assert "finds them anew" not in caplog.text
