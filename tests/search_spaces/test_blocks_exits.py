"""Exits of any model, and classifiers that given weights lack."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from paretopath.elastic.exits import exit_paths
from paretopath.errors import InvalidValueError, UntrainedClassifier
from paretopath.weights.new import new_parameters
from search_spaces.blocks.space import BlocksSpace
from tests.search_spaces.blocks_models import ATTENTION, SMALL, make_space


@pytest.mark.parametrize(
    ("options", "exits"),
    [
        (SMALL["resnet"], ("layer1.1", "layer2.1", "layer3.1")),
        (SMALL["attention's heads, with a table for them"], ("layers.0.blocks.0",)),
        (
            {**ATTENTION["timm's"], "arguments": {**ATTENTION["timm's"]["arguments"], "depth": 4}},
            ("blocks.0", "blocks.1", "blocks.2"),
        ),
    ],
    ids=["where maps get smaller", "channels last", "tokens of one size, at each quarter"],
)
def test_exits_lie_behind_stages(options: dict[str, Any], exits: tuple[str, ...]) -> None:
    space = make_space(**{**options, "exits": "stages"})
    model = space.build()
    assert space.exits == exits
    *early, _ = exit_paths(model)
    images = torch.randn(2, *space.input_shape)
    for path, name in zip(early, exits, strict=True):
        last = model.steps(path)[-1].unit
        assert last.name == f"exits.{name}"
        with torch.no_grad(), model.active(path):
            assert model(images).shape == (2, space.num_classes)
        assert not any(decision in path for decision in behind(space, name))


def behind(space: BlocksSpace, name: str) -> list[str]:
    """The decisions of units that run after one."""
    names = [unit.piece.name for unit in space.plan]
    later = tuple(f"{other}." for other in names[names.index(name) + 1 :])
    return [d.name for d in space.decisions if d.name.startswith(later)]


@pytest.mark.parametrize(
    ("exits", "message"),
    [
        ("stage", "exits must be a list of units, stages or none, but got 'stage'; .*'stages'"),
        (["layer1.7"], "exits: there is no unit 'layer1.7' that hands on one tensor of features"),
        (["fc"], "exits: there is no unit 'fc' that hands on"),
    ],
)
def test_exits_that_can_not_be_are_refused(exits: Any, message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        make_space(**{**SMALL["resnet"], "exits": exits})


def test_exits_need_a_classifier() -> None:
    with pytest.raises(InvalidValueError, match="exits need a classifier's output"):
        make_space(**SMALL["one's own, with long skips"], exits=["fine"])


def test_exits_are_what_given_weights_lack(tmp_path: Path) -> None:
    options = {**SMALL["resnet"], "exits": ["layer2.1"]}
    known = timm.create_model(options["model"], **options["arguments"]).state_dict()
    torch.save(known, tmp_path / "known.pth")
    new = new_parameters(make_space(**options).build(str(tmp_path / "known.pth")))
    assert {name.partition(".head.")[0] for name in new} == {"units.exits_layer2_1"}


@pytest.mark.parametrize("classes", [5, 0])
def test_a_checkpoint_of_other_classes_or_none_leaves_the_classifier_new(
    classes: int, tmp_path: Path
) -> None:
    options = {**SMALL["resnet"], "exits": "none"}
    arguments = {**options["arguments"], "num_classes": classes}
    known = timm.create_model(options["model"], **arguments).state_dict()
    torch.save(known, tmp_path / "other.pth")
    space = BlocksSpace(**options)
    with pytest.warns(UntrainedClassifier, match="but the model's has 7"):
        model = space.build(str(tmp_path / "other.pth"))
    assert {name.split(".body.")[1] for name in new_parameters(model)} == {"fc.weight", "fc.bias"}
    state = space.original_state(model)
    assert torch.equal(state["conv1.weight"], known["conv1.weight"])


def test_a_model_with_two_classifiers_gets_both_anew(tmp_path: Path) -> None:
    arguments = {"img_size": 32, "embed_dim": 16, "depth": 2, "num_heads": 2}
    name = "deit_tiny_distilled_patch16_224"
    torch.save(timm.create_model(name, **arguments).state_dict(), tmp_path / "other.pth")
    space = BlocksSpace(model=name, arguments={**arguments, "num_classes": 5}, exits="none")
    with pytest.warns(UntrainedClassifier, match="of 1000 classes, but the model's has 5"):
        new = new_parameters(space.build(str(tmp_path / "other.pth")))
    wanted = {f"{head}.{part}" for head in ("head", "head_dist") for part in ("weight", "bias")}
    assert {name.split(".body.")[1] for name in new} == wanted
