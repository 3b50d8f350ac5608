"""Leaving early: image by image or many at once, in one model or a family of models."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from paretopath.deploy import DynamicModel
from paretopath.deploy.chooser import Option
from paretopath.deploy.exits import at_threshold, by_policy, leave_early
from paretopath.deploy.preprocessing import Preprocessing
from paretopath.elastic import ElasticModel, Step
from paretopath.elastic.exits import steps_with_exits
from paretopath.errors import InvalidValueError
from paretopath.front import Point, Policy, TrialRecord
from paretopath.paths import Value
from paretopath.policies.confidence import MEASURES
from paretopath.policies.leaving import Bools
from paretopath.policies.outputs import ExitOutputs, gather_outputs
from paretopath.policies.points import exits_taken
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
    rule = at_threshold(CONFIDENCE, threshold_of(steps, images))
    alone: list[tuple[Tensor, Tensor]] = []
    needed = 0  # images times the blocks up to the exit that each takes
    depth = [sum(not s.unit.is_exit for s in steps[:i]) for i, s in enumerate(steps)]
    at_exit = [depth[i] for i, step in enumerate(steps) if step.unit.is_exit]
    for image in images[:batch].split(1):
        alone.append(leave_early(steps, image, rule))
        needed += at_exit[int(alone[-1][1])]
    with counted(model) as counts:
        logits, taken = leave_early(steps, images[:batch], rule)
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
            steps, images, at_threshold(CONFIDENCE, threshold_of(steps, images))
        )
        for number, name in enumerate(exits):
            value = int(name.rsplit(".", 1)[1])
            left = taken == number
            with model.active({**path, f"{prefix}exit": value}):
                expected = model(images)[left]
            torch.testing.assert_close(logits[left], expected, rtol=1e-4, atol=1e-4)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Policies of the large model of the family, with thresholds that some images reach."""
    early = draw(st.sampled_from([(1,), (2,), (1, 2)]))
    confidence = draw(st.sampled_from(sorted(MEASURES)))
    highest = {"agreement": 2.0, "maximum": 1.0}.get(confidence, 0.6)
    return Policy(
        confidence,
        tuple(f"large.exits.{e}" for e in (*early, 4)),
        tuple(draw(st.floats(0.0, highest)) for _ in early),
        tuple(draw(st.floats(0.2, 5.0)) for _ in early),
    )


@settings(max_examples=15, deadline=None)
@given(policy=policies(), batch=st.sampled_from([1, 7, 256]))
@torch.inference_mode()
def test_by_any_policy_a_batch_gives_what_the_search_saw_image_by_image(
    model: ElasticModel, images: Tensor, policy: Policy, batch: int
) -> None:
    path = model.space.canonical({"model": "large"})
    outputs = gather_outputs(model, path, [(images, torch.zeros(256, dtype=torch.long))], TASK)
    expected = exits_taken(policy, outputs)[:batch]
    steps = steps_with_exits(model, path, policy.exits[:-1])
    logits, taken = leave_early(steps, images[:batch], by_policy(policy))
    numbers = [outputs.exits.index(name) for name in policy.exits]
    there = torch.tensor(numbers)[taken]
    edges = near_a_threshold(policy, outputs, batch)
    assert ((there.numpy() == expected) | edges).all()
    picked = outputs.logits[there, torch.arange(batch)]
    torch.testing.assert_close(logits, picked, rtol=1e-4, atol=1e-4)
    alone = [leave_early(steps, image, by_policy(policy)) for image in images[:batch].split(1)]
    same = torch.cat([number for _, number in alone]) == taken
    assert (same.numpy() | edges).all()


def near_a_threshold(policy: Policy, outputs: ExitOutputs, batch: int) -> Bools:
    """(batch,) images whose confidence lies so near a threshold that rounding decides."""
    near = np.zeros(batch, dtype=np.bool_)
    if policy.confidence == "agreement":
        return near
    early = zip(policy.exits[:-1], policy.thresholds, policy.temperatures, strict=True)
    for name, threshold, temperature in early:
        logits = outputs.logits[outputs.exits.index(name), :batch] / temperature
        near |= (MEASURES[policy.confidence](logits, ())[0] - threshold).abs().numpy() < 1e-4
    return near


@torch.inference_mode()
def test_thresholds_never_reached_give_the_full_path_and_those_always_reached_the_first_exit(
    model: ElasticModel, images: Tensor
) -> None:
    path = model.space.canonical({"model": "large"})
    with model.active(path):
        full = model(images)
    with model.active({**path, "large.exit": 1}):
        first = model(images)
    names = ("large.exits.1", "large.exits.2", "large.exits.4")
    steps = steps_with_exits(model, path)
    for confidence in MEASURES:
        for thresholds, number, expected in (((9.0, 9.0), 2, full), ((-1.0, -1.0), 0, first)):
            policy = Policy(confidence, names, thresholds, (1.0, 2.0))
            logits, taken = leave_early(steps, images, by_policy(policy))
            assert taken.tolist() == [number] * len(images)
            torch.testing.assert_close(logits, expected)


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
