"""Retraining that learns behind each exit on the way (deep supervision)."""

import pytest
import torch

from paretopath.recipe import RetrainSettings
from paretopath.tasks.classification.task import Classification
from paretopath.training.retrain import SeparateTraining, SharedTraining, passed_exits
from search_spaces.vit import VitSpace

ARGUMENTS = {
    "img_size": 8,
    "patch_size": 2,
    "in_chans": 1,
    "embed_dim": 16,
    "depth": 3,
    "num_heads": 2,
    "num_classes": 10,
    "global_pool": "avg",
    "class_token": False,
}


def test_exits_on_the_way_are_trained_along_by_their_weight() -> None:
    torch.manual_seed(0)
    model = VitSpace(arguments=ARGUMENTS, exits=(1, 2, 3)).build().eval()
    batch = torch.randn(4, 1, 8, 8), torch.randint(10, (4,))
    task, path = Classification(), model.space.canonical({"blocks.1.heads": 1})
    lost = []
    for exit_ in (1, 2, 3):
        with torch.no_grad(), model.active({**path, "exit": exit_}):
            lost.append(float(task.loss(model(batch[0]), batch[1])))
    passed = passed_exits(model, path)
    student = model.extract(path)
    training = SeparateTraining(
        student, None, RetrainSettings(), task, passed=passed, passed_weight=0.5
    )
    loss = training.training_step(batch, 0)
    assert float(loss.detach()) == pytest.approx((lost[2] + 0.5 * (lost[0] + lost[1])) / 2)
    loss.backward()
    assert all(p.grad is not None for head in passed.values() for p in head.parameters())
    assert not set(passed.values()) & set(student.modules())  # they are not kept
    assert passed_exits(model, model.space.canonical({"exit": 1})) == {}


def test_shared_training_counts_exits_on_the_way_by_their_weight() -> None:
    torch.manual_seed(0)
    model = VitSpace(arguments=ARGUMENTS, exits=(1, 2, 3)).build().eval()
    batch = torch.randn(4, 1, 8, 8), torch.randint(10, (4,))
    task, path = Classification(), model.space.canonical({"blocks.0.heads": 1, "exit": 2})
    lost = {}
    for name, heads, exit_ in (("path", 1, 2), ("full", 2, 3), *((e, 2, e) for e in (1, 2))):
        with torch.no_grad(), model.active({"blocks.0.heads": heads, "exit": exit_}):
            lost[name] = float(task.loss(model(batch[0]), batch[1]))
    with torch.no_grad(), model.active({"blocks.0.heads": 1, "exit": 1}):
        passed = lost[1] + lost[2] + float(task.loss(model(batch[0]), batch[1]))
    for weight in (0.0, 0.5):
        training = SharedTraining(
            model, [path], RetrainSettings(), task, distil=False, passed_weight=weight
        )
        loss = training.training_step(batch, 0)
        expected = (lost["full"] + lost["path"] + weight * passed) / (2 + 3 * weight)
        assert float(loss.detach()) == pytest.approx(expected)
