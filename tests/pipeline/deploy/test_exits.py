"""Leaving early: image by image or many at once, in one model or a family of models."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from paretopath.deploy import DynamicModel
from paretopath.deploy.chooser import Option
from paretopath.deploy.exits import leave_early, steps_with_exits
from paretopath.deploy.preprocessing import Preprocessing
from paretopath.elastic import ElasticModel, Step
from paretopath.errors import InvalidValueError
from paretopath.front import Point, TrialRecord
from paretopath.paths import Value
from paretopath.recipe import TrainSettings
from paretopath.recipe.tasks import default_section
from tests.pipeline.vit_family import vit_family

TASK = default_section().create(TrainSettings())
CONFIDENCE = TASK.confidence
PATHS: list[dict[str, Value]] = [
    {"model": "large"},
    {"model": "small", "small.blocks.0.mlp_ratio": 0.5},
    {"model": "large", "large.blocks.2.run": False},
]


@pytest.fixture(scope="module")
def model() -> ElasticModel:
    torch.manual_seed(0)
    model = vit_family().build()
    with torch.no_grad():  # far enough from its start that images differ in how sure it is
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(256, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def threshold_of(steps: tuple[Step, ...], images: Tensor) -> float:
    """What some of the images reach at the first exit, as far from any image as can be there."""
    first = next(i for i, step in enumerate(steps) if step.unit.is_exit)
    state = images
    with torch.inference_mode():
        for step in steps[: first + 1]:
            state = step(state)
    middle = CONFIDENCE(state).sort().values[len(images) // 4 : 3 * len(images) // 4]
    widest = int(middle.diff().argmax())
    return float((middle[widest] + middle[widest + 1]) / 2)


@contextmanager
def counted(model: ElasticModel) -> Iterator[dict[str, int]]:
    """How many images went through each unit that is no exit, by name."""
    counts: dict[str, int] = {}
    hooks = []
    for unit in model.chain:
        if not unit.is_exit:

            def count(unit, inputs, output, name=unit.name):  # type: ignore[no-untyped-def]
                counts[name] = counts.get(name, 0) + len(output)

            hooks.append(unit.register_forward_hook(count))
    yield counts
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("batch", [1, 7, 256])
@torch.inference_mode()
def test_a_batch_gives_what_image_by_image_gives_and_runs_no_more_blocks(
    model: ElasticModel, images: Tensor, path: dict[str, Value], batch: int
) -> None:
    steps = steps_with_exits(model, path)
    threshold = threshold_of(steps, images)
    alone: list[tuple[Tensor, Tensor]] = []
    needed = 0  # images times the blocks up to the exit that each takes
    depth = [sum(not s.unit.is_exit for s in steps[:i]) for i, s in enumerate(steps)]
    at_exit = [depth[i] for i, step in enumerate(steps) if step.unit.is_exit]
    for image in images[:batch].split(1):
        alone.append(leave_early(steps, image, confidence=CONFIDENCE, threshold=threshold))
        needed += at_exit[int(alone[-1][1])]
    with counted(model) as counts:
        logits, taken = leave_early(
            steps, images[:batch], confidence=CONFIDENCE, threshold=threshold
        )
    torch.testing.assert_close(logits, torch.cat([out for out, _ in alone]), rtol=1e-4, atol=1e-4)
    assert taken.tolist() == [int(number) for _, number in alone]
    assert sum(counts.values()) == needed
    if batch == 256:
        assert len(set(taken.tolist())) > 1 and needed < batch * at_exit[-1]


@torch.inference_mode()
def test_who_leaves_has_the_logits_of_the_path_that_ends_there(
    model: ElasticModel, images: Tensor
) -> None:
    for path in PATHS:
        prefix = f"{path['model']}."
        steps = steps_with_exits(model, path)
        exits = [step.unit.name for step in steps if step.unit.is_exit]
        logits, taken = leave_early(
            steps, images, confidence=CONFIDENCE, threshold=threshold_of(steps, images)
        )
        for number, name in enumerate(exits):
            value = int(name.rsplit(".", 1)[1])
            left = taken == number
            with model.active({**path, f"{prefix}exit": value}):
                expected = model(images)[left]
            torch.testing.assert_close(logits[left], expected, rtol=1e-4, atol=1e-4)


def test_a_dynamic_model_of_a_family_leaves_at_the_exits_of_the_path_s_own_member(
    model: ElasticModel, images: Tensor
) -> None:
    full = model.space.full
    costs = {"macs": 9.0, "params": 9.0}
    trial = TrialRecord(0, "complete", full, 0.5, 0.1, 10, costs)
    dynamic = DynamicModel(
        {"searched": model},
        [Option(Point.of_trial(trial), "searched", 0.5)],
        task=TASK,
        preprocessing=Preprocessing((1, 8, 8), None),
    )
    for path in ({}, {"model": "small"}, {"model": "large", "large.exit": 2}):
        member = dict(path).get("model", "large")
        for threshold in (1e-6, 0.5, 1.0):
            logits, exits = dynamic.classify_early(images, threshold=threshold, path=path)
            names = {dynamic.exits[number] for number in exits.tolist()}
            assert logits.shape == (256, 10)
            assert all(name.startswith(f"{member}.exits.") for name in names)
            if threshold == 1e-6:
                assert names == {f"{member}.exits.1"}


def test_only_exits_on_the_way_can_be_asked(model: ElasticModel) -> None:
    asked = steps_with_exits(model, {"model": "large"}, ["large.exits.2"])
    names = [step.unit.name for step in asked if step.unit.is_exit]
    assert names == ["large.exits.2", "large.exits.4"]
    for wrong in ("small.exits.1", "large.exits.3"):
        with pytest.raises(InvalidValueError, match=f"'{wrong}' does not; legal: large.exits.1"):
            steps_with_exits(model, {"model": "large"}, [wrong])
