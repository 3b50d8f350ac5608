"""Paths that say what share of their images leaves at each exit."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from paretopath.cost import CostTable
from paretopath.cost import create as cost_model
from paretopath.costs import COST_NAMES, COSTS
from paretopath.elastic import ElasticModel
from paretopath.elastic.exits import exits_on_the_way
from paretopath.errors import InvalidValueError
from paretopath.evaluation.evaluator import Evaluator
from paretopath.front.dominance import pareto_front
from paretopath.jobs.leaving import left_early
from paretopath.jobs.scoring import cost_of
from paretopath.paths import ExecutionPath
from paretopath.policies.evaluation import LeavingEvaluator
from paretopath.policies.shares import SHARES, LeavingCosts, LeavingSpace, leave_by_shares
from paretopath.policies.telling import MOST_TOLD, CostOf, hits_of_shares
from paretopath.recipe import Racing
from paretopath.search import SearchSettings, search
from paretopath.search.racing import Racer
from paretopath.search.trials import ToldRows, evaluated
from paretopath.tasks.classification.task import Classification
from paretopath.tasks.segmentation.task import Segmentation
from paretopath.tasks.task import Score, Told
from search_spaces.vit import VitSpace
from tests.pipeline.vit_family import vit_family

ARGUMENTS = {
    "img_size": 8,
    "patch_size": 4,
    "in_chans": 1,
    "num_classes": 4,
    "embed_dim": 16,
    "depth": 4,
    "num_heads": 2,
}


@pytest.fixture(scope="module")
def space() -> VitSpace:
    return VitSpace(arguments=ARGUMENTS, exits=[1, 2, 4], skippable=[2], mlp_ratios=[0.5, 1.0])


@pytest.fixture(scope="module")
def model(space: VitSpace) -> ElasticModel:
    torch.manual_seed(0)
    return space.build().eval()


@pytest.fixture(scope="module")
def batches() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(90, 1, 8, 8, generator=generator)
    labels = torch.randint(0, 4, (90,), generator=generator)
    return list(zip(images.split(16), labels.split(16), strict=True))


def costs_of(space: LeavingSpace) -> CostOf:
    table = CostTable(space.static, cost_model(preset="magnet-16nm"))
    return cost_of(LeavingCosts(space, table), "energy_mj")


def random_paths(space: LeavingSpace, count: int) -> list[ExecutionPath]:
    return space.decode(space.sample_encoded(np.random.default_rng(1), count))


def test_an_expected_cost_is_what_each_image_pays(space: VitSpace, model: ElasticModel) -> None:
    """Image by image: the way to its exit and all exits that it was asked at."""
    table = CostTable(space, cost_model(preset="magnet-16nm"))
    leaving = LeavingSpace(space)
    paths = random_paths(leaving, 40)
    found = LeavingCosts(leaving, table).encoded(leaving.encode(paths))
    several = 0
    for i, path in enumerate(paths):
        apart = leaving.apart(path, model)
        shares = (*(share for share in apart.shares if share > 0), 1.0)
        asked = [
            way for way, share in zip(apart.ways, (*apart.shares, 1.0), strict=True) if share > 0
        ]
        ways = [[unit.costs for unit in table.breakdown(way)] for way in asked]
        several += len(ways) > 2
        comes, expected = 1.0, dict.fromkeys(COST_NAMES, 0.0)
        for number, way in enumerate(ways):
            share = shares[number]
            heads = [earlier[-1] for earlier in ways[:number]]
            for cost in COSTS:
                units = [unit[cost.name] for unit in (*way, *heads) if cost.name in unit]
                if not cost.is_sum:
                    expected[cost.name] = max(expected[cost.name], *units)
                elif cost.is_held:
                    expected[cost.name] = sum(units)  # the last way holds all
                else:
                    expected[cost.name] += comes * share * sum(units)
            comes *= 1 - share
        for name in ("energy_mj", "macs", "params", "latency_ms", "activation_bytes"):
            assert found.table[i, COST_NAMES.index(name)] == pytest.approx(expected[name]), name
    assert several > 5


def test_a_path_that_nobody_leaves_costs_what_it_always_did(space: VitSpace) -> None:
    table, leaving = CostTable(space, cost_model(preset="magnet-16nm")), LeavingSpace(space)
    rows = space.sample_encoded(np.random.default_rng(2), 50)
    same = leaving.canonical_encoded(np.pad(rows, ((0, 0), (0, 2)), constant_values=-1))
    found = LeavingCosts(leaving, table).encoded(same).table
    np.testing.assert_allclose(found, table.encoded(rows).table)


def test_a_share_matters_only_where_a_path_passes_the_exit(space: VitSpace) -> None:
    leaving = LeavingSpace(space)
    assert [exit_.name for exit_ in leaving.exits] == ["exits.1", "exits.2"]
    assert "exits.2.share" not in leaving.canonical({"exit": 2, "exits.1.share": 0.3})
    assert leaving.size > space.size
    assert not any(leaving.shares_of(leaving.full)) and leaving.without(leaving.full) == space.full


def test_in_a_family_each_model_has_exits_of_its_own() -> None:
    family = vit_family()
    leaving, model = LeavingSpace(family), family.build()
    for path in random_paths(leaving, 15):
        apart = leaving.apart(path, model)
        passed = exits_on_the_way(model, leaving.without(path))[:-1]
        assert len(leaving.shares_of(path)) == len(passed)
        assert leaving.shares_of(path) == apart.shares


@pytest.mark.parametrize("images", [1, 7, 256])
def test_the_surest_share_of_those_that_come_leaves(images: int) -> None:
    rng = np.random.default_rng(images)
    sure = rng.random((2, images))
    taken = leave_by_shares(list(sure), [0.3, 0.6])
    first = round(0.3 * images)
    assert (taken == 0).sum() == first
    assert (taken == 1).sum() == round(0.6 * (images - first))
    if 0 < first < images:
        assert sure[0, taken == 0].min() >= sure[0, taken > 0].max()


def test_many_paths_score_as_each_exit_asked_alone(
    space: VitSpace, model: ElasticModel, batches: list[tuple[Tensor, Tensor]]
) -> None:
    leaving = LeavingSpace(space)
    evaluator = LeavingEvaluator(
        Evaluator(model, batches, Classification()), model, leaving, costs_of(leaving)
    )
    paths = random_paths(leaving, 12)
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    for path, score in zip(paths, evaluator(paths), strict=True):
        waiting, right = torch.arange(len(images)), 0
        apart = leaving.apart(path, model)
        for way, share in zip(apart.ways, (*apart.shares, 1.0), strict=True):
            with torch.inference_mode(), model.active(way):
                logits = model(images[waiting])
            order = logits.softmax(-1).amax(-1).sort(descending=True, stable=True).indices
            leave = order[: round(share * len(waiting))]
            right += int((logits[leave].argmax(-1) == labels[waiting[leave]]).sum())
            waiting = waiting[order[len(leave) :]].sort().values
        assert isinstance(score, Score)
        assert score.value == pytest.approx(right / len(images), abs=1.5 / len(images))


def test_blocks_run_once_however_many_shares_are_tried(
    space: VitSpace, model: ElasticModel, batches: list[tuple[Tensor, Tensor]]
) -> None:
    leaving = LeavingSpace(space)
    evaluator = Evaluator(model, batches, Classification())
    paths = [leaving.canonical({"exits.1.share": share}) for share in SHARES]
    list(LeavingEvaluator(evaluator, model, leaving, costs_of(leaving))(paths))
    units = [step.unit.name for step, images in evaluator.work.items() if images == 90]
    assert sorted(units) == sorted(set(units)) and "exits.1" in units and "exits.4" in units


def test_what_one_path_tells_of_others_is_what_they_score(
    space: VitSpace, model: ElasticModel, batches: list[tuple[Tensor, Tensor]]
) -> None:
    leaving = LeavingSpace(space)
    evaluator = LeavingEvaluator(
        Evaluator(model, batches, Classification()), model, leaving, costs_of(leaving)
    )
    for path, score in zip(paths := random_paths(leaving, 4), evaluator(paths), strict=True):
        assert isinstance(score, Told) and 0 < len(score.also) <= MOST_TOLD
        for other, told in score.also.items():
            (alone,) = evaluator([other])
            assert isinstance(alone, Score)
            assert (alone.value, alone.error, alone.samples) == (
                told.value,
                told.error,
                told.samples,
            )
        accuracies = [told.value for told in score.also.values()]
        assert (
            all(pareto_front(accuracies, costs_of(leaving)(leaving.encode(score.also))))
            and path not in score.also
        )


def test_right_answers_of_all_policies_are_those_of_each() -> None:
    rng = np.random.default_rng(0)
    sure, right = rng.random((2, 83)), rng.random((3, 83)) < [[0.5], [0.6], [0.7]]
    found = hits_of_shares(list(sure), list(right))
    assert len({*map(tuple, found[0].tolist())}) == len(SHARES) ** 2
    for choices, hits in zip(*found, strict=True):
        taken = leave_by_shares(list(sure), [SHARES[choice] for choice in choices])
        assert hits == right[taken, np.arange(83)].sum()


def test_of_very_many_policies_a_part_is_tried() -> None:
    rng = np.random.default_rng(0)
    sure, right = rng.random((9, 20)), rng.random((10, 20)) < 0.5
    found = hits_of_shares(list(sure), list(right))
    assert len(found[0]) == len(found[1]) == 512
    for mine, again in zip(found, hits_of_shares(list(sure), list(right)), strict=True):
        np.testing.assert_array_equal(mine, again)


def test_a_path_is_evaluated_once_whatever_shares_leave(
    space: VitSpace, model: ElasticModel, batches: list[tuple[Tensor, Tensor]], tmp_path: Path
) -> None:
    leaving = LeavingSpace(space)
    pricer = LeavingCosts(leaving, CostTable(space, cost_model(preset="magnet-16nm")))
    evaluator = LeavingEvaluator(
        Evaluator(model, batches, Classification()), model, leaving, costs_of(leaving)
    )
    settings = SearchSettings(trials=60, seed=0, cost="energy_mj")
    study = search(leaving, pricer, evaluator, settings, run_dir=tmp_path)
    trials = evaluated(study, leaving)
    alone = [leaving.without(trial.path) for trial in trials]
    assert len(set(alone)) == len(alone) == 60
    left = left_early(leaving, trials, costs_of(leaving))
    rows = [ToldRows.of(trial) for trial in trials]
    told = {
        p for found in rows if found for p in map(leaving.without, leaving.decode(found.matrix))
    }
    assert left and {*left} <= told | {*alone}
    assert all(
        leaving.without(trials[number].path) == path or path in told
        for path, number in left.items()
    )


def test_paths_with_policies_race(
    space: VitSpace, model: ElasticModel, batches: list[tuple[Tensor, Tensor]]
) -> None:
    """Nobody stops where all cost more than whoever is ahead; scores are those without a race."""
    leaving = LeavingSpace(space)
    evaluator = LeavingEvaluator(
        Evaluator(model, batches, Classification()), model, leaving, costs_of(leaving)
    )
    paths = random_paths(leaving, 6)
    raced = Racer(evaluator, lambda some: np.zeros(len(some)), racing=Racing(), spared=paths)(paths)
    assert raced == list(evaluator(paths))


def test_what_cannot_be_left_early_is_refused(
    space: VitSpace, model: ElasticModel, batches: list[tuple[Tensor, Tensor]]
) -> None:
    with pytest.raises(InvalidValueError, match="those of VitSpace pass none"):
        LeavingSpace(VitSpace(arguments=ARGUMENTS, exits=[4]))
    with pytest.raises(InvalidValueError, match="task segmentation does not say of each image"):
        leaving = LeavingSpace(space)
        of_segments = Evaluator(model, batches, Segmentation())
        LeavingEvaluator(of_segments, model, leaving, costs_of(leaving))
