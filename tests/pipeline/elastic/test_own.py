"""What belongs to one path alone: handed through its steps, never put into the model."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from paretopath.elastic import Choice, ElasticModel, ElasticSpace, State, Unit
from paretopath.elastic.own import PathTensors
from paretopath.elastic.prefixes import PrefixTree
from paretopath.errors import InvalidValueError
from paretopath.evaluation.batch_norm import recalibrate
from paretopath.paths import Decision, ExecutionPath
from tests.pipeline.normalised_space import NormalisedSpace

NARROW = {"first.width": 4, "second.width": 8}


@pytest.fixture
def model() -> ElasticModel:
    torch.manual_seed(0)
    return NormalisedSpace().build()


def images(seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def measured(model: ElasticModel, path: dict[str, int], scale: float) -> PathTensors:
    return recalibrate(model, path, [(images(1, scale), None)])


@torch.inference_mode()
def run(model: ElasticModel, own: PathTensors, x: Tensor) -> Tensor:
    state: State = x
    for step in model.steps(own.path, own):
        state = step(state)
    return state


def test_threads_run_one_path_with_different_statistics(model: ElasticModel) -> None:
    owns = [measured(model, NARROW, scale) for scale in (1.0, 2.0, 3.0, 4.0)]
    x = images(2)
    alone = [run(model, own, x) for own in owns]
    assert not any(torch.allclose(a, b) for a, b in pairwise(alone))
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda i: (i % 4, run(model, owns[i % 4], x)), range(200)))
    assert all(torch.equal(output, alone[which]) for which, output in found)


def test_paths_share_the_steps_for_which_they_have_the_same(model: ElasticModel) -> None:
    space = model.space
    paths = [space.canonical({**NARROW, "second.width": width}) for width in (4, 8, 16)]
    x = images(1)
    own = {path: recalibrate(model, path, [(x, None)]) for path in paths[:2]}
    tree = PrefixTree(model, paths, own=own)
    # measured on one set of images, the first unit's statistics are the same on two of the paths;
    # the third has the model's
    assert sorted(node.count for node in tree.roots) == [1, 2]
    for index, output in tree.run(x):
        with model.active(paths[index], own.get(paths[index])):
            torch.testing.assert_close(output, model(x))
    apart = {**own, paths[1]: measured(model, dict(paths[1]), 2.0)}
    assert len(PrefixTree(model, paths, own=apart).roots) == 3


def test_statistics_in_files_of_two_paths_are_the_same_if_their_numbers_are(
    model: ElasticModel, tmp_path: Path
) -> None:
    own = measured(model, NARROW, 1.0)
    own.save(tmp_path / "own.safetensors")
    again = PathTensors.load(tmp_path / "own.safetensors", own.path)
    assert model.steps(own.path, own) == model.steps(own.path, again)
    assert model.steps(own.path, own) != model.steps(own.path)


def test_a_model_that_trains_keeps_to_its_own_statistics(model: ElasticModel) -> None:
    own = measured(model, NARROW, 3.0)
    kept = {name: tensor.clone() for name, tensor in own.tensors.items()}
    before = model.chain[0].norm.running_mean.clone()
    x = images(2)
    model.train()
    with model.active(own.path, own):
        with_own = model(x)
    with model.active(own.path):
        without = model(x)
    torch.testing.assert_close(with_own, without)  # both by their batch
    assert not torch.equal(model.chain[0].norm.running_mean[:4], before[:4])
    assert all(torch.equal(own.tensors[name], tensor) for name, tensor in kept.items())


@torch.no_grad()
def test_autocast_changes_nothing_about_whose_statistics_are_taken(model: ElasticModel) -> None:
    own = measured(model, NARROW, 3.0)
    x = images(2)
    expected = run(model, own, x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = run(model, own, x)
    torch.testing.assert_close(found.float(), expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize(
    "name", ["units.third.norm.running_mean", "units.first.nrm.running_mean", "running_mean"]
)
def test_tensors_of_layers_that_a_model_has_not_are_refused(model: ElasticModel, name: str) -> None:
    own = PathTensors(model.space.full, {name: torch.zeros(4)})
    with pytest.raises(InvalidValueError, match=f"'{name}' of its own, but its model has none"):
        model.activate(own.path, own)


class Plain(Unit):
    """A unit with PyTorch's own batch normalisation."""

    is_exit = True

    def __init__(self) -> None:
        super().__init__("stem")
        self.norm = nn.BatchNorm2d(3)

    def forward(self, state: State, choice: Choice) -> State:
        return self.norm(state)

    def extract(self, choice: Choice) -> nn.Module:
        return self.norm


class PlainSpace(ElasticSpace):
    def __init__(self) -> None:
        super().__init__([Decision("width", (1,))], input_shape=(3, 8, 8))

    def units(self, checkpoint: str | None = None) -> list[Unit]:
        return [Plain()]


def test_a_batch_normalisation_that_asks_for_nothing_is_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"'units\.stem\.norm' is a BatchNorm2d"):
        PlainSpace().build()


def test_an_unknown_path_has_nothing_for_itself(model: ElasticModel) -> None:
    own = measured(model, NARROW, 2.0)
    model.own = {own.path: own}
    other = ExecutionPath({**own.path, "second.width": 4})
    assert all(step.own is None for step in model.steps(other))
    assert any(step.own is not None for step in model.steps(dict(own.path)))
