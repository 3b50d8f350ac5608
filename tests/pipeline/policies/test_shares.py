"""Paths that say what share of their images leaves at each exit."""

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
from paretopath.paths import ExecutionPath
from paretopath.policies.evaluation import LeavingEvaluator
from paretopath.policies.shares import SHARES, LeavingCosts, LeavingSpace, leave_by_shares
from paretopath.recipe import Racing
from paretopath.search.racing import Racer
from paretopath.tasks.classification.task import Classification
from paretopath.tasks.segmentation.task import Segmentation
from paretopath.tasks.task import Score
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
        ways = [[unit.costs for unit in table.breakdown(way)] for way in apart.ways]
        several += len(ways) > 2
        comes, expected = 1.0, dict.fromkeys(COST_NAMES, 0.0)
        for number, way in enumerate(ways):
            share = apart.shares[number] if number < len(apart.shares) else 1.0
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
        assert sum(share > 0 for share in leaving.shares_of(path)) == len(apart.shares)


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
    evaluator = LeavingEvaluator(Evaluator(model, batches, Classification()), model, leaving)
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
    list(LeavingEvaluator(evaluator, model, leaving)(paths))
    units = [step.unit.name for step, images in evaluator.work.items() if images == 90]
    assert sorted(units) == sorted(set(units)) and "exits.1" in units and "exits.4" in units


def test_paths_with_policies_race(
    space: VitSpace, model: ElasticModel, batches: list[tuple[Tensor, Tensor]]
) -> None:
    """Nobody stops where all cost more than whoever is ahead; scores are those without a race."""
    leaving = LeavingSpace(space)
    evaluator = LeavingEvaluator(Evaluator(model, batches, Classification()), model, leaving)
    paths = random_paths(leaving, 6)
    raced = Racer(evaluator, lambda some: np.zeros(len(some)), racing=Racing(), spared=paths)(paths)
    assert raced == list(evaluator(paths))


def test_what_cannot_be_left_early_is_refused(
    space: VitSpace, model: ElasticModel, batches: list[tuple[Tensor, Tensor]]
) -> None:
    with pytest.raises(InvalidValueError, match="those of VitSpace pass none"):
        LeavingSpace(VitSpace(arguments=ARGUMENTS, exits=[4]))
    with pytest.raises(InvalidValueError, match="task segmentation does not say of each image"):
        LeavingEvaluator(Evaluator(model, batches, Segmentation()), model, LeavingSpace(space))
