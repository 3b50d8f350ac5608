"""Channels that span units, narrowed by a decision that all of these units share."""

from typing import Any

import pytest
import torch
from torch import nn

from paretopath.calibration.importance import sort_by_magnitude, sort_by_taylor
from paretopath.calibration.moments import calibrate
from paretopath.elastic import ElasticModel
from paretopath.elastic.repair import Repair
from paretopath.errors import InvalidValueError
from paretopath.paths import ExecutionPath
from search_spaces.blocks.space import BlocksSpace
from tests.search_spaces.blocks_models import holds_the_invariants, make_space
from tests.search_spaces.test_blocks import PUBLISHED, SHALLOW

RESNET: dict[str, Any] = {
    "model": "resnet18",
    "arguments": {"layers": [2, 1, 1, 1], "channels": [64, 16, 16, 32], "num_classes": 7},
    "input_shape": [3, 32, 32],
    "divisor": 1,
}
HALVES = [0.5, 1.0]


def narrowest(space: BlocksSpace) -> ExecutionPath:
    """The path that is full but for its streams."""
    return space.canonical({name: space[name].values[0] for name in space.streams})


def test_each_stream_is_a_decision_of_the_units_that_it_passes() -> None:
    space = make_space(**RESNET, stream_ratios=HALVES)
    streams = {name: stream.whole.name for name, (stream, _) in space.streams.items()}
    assert streams == {
        "streams.0.keep_ratio": "conv1",
        "streams.1.keep_ratio": "layer2.0.conv2",
        "streams.2.keep_ratio": "layer3.0.conv2",
        "streams.3.keep_ratio": "layer4.0.conv2",
    }
    units = {unit.name: unit for unit in space.build().chain}
    passed = [name for name in units if "streams.1.keep_ratio" in units[name].decisions]
    assert passed == ["layer2.0", "layer3.0"]
    assert "streams.0.keep_ratio" in units["layer1.1"].decisions


@pytest.mark.parametrize(
    "name", ["resnet50", "regnety_002", "mobilevit_xxs", "vgg11_bn", "mobilenetv3_small_100"]
)
def test_architectures_run_with_narrow_streams_as_they_are_extracted(name: str) -> None:
    options = {"model": name, **PUBLISHED[name], "arguments": SHALLOW.get(name, {})}
    space = make_space(**options, stream_ratios=HALVES, keep_ratios=[1.0], divisor=1)
    assert len(space.streams) >= 3
    holds_the_invariants(space)


def test_what_is_extracted_is_narrow_from_end_to_end() -> None:
    space = make_space(**RESNET, stream_ratios=HALVES)
    plain = space.build().extract(narrowest(space))
    outputs = [m.out_channels for m in plain.modules() if isinstance(m, nn.Conv2d)]
    assert (outputs[0], outputs[-1], max(outputs)) == (32, 16, 64)  # whole inside a block
    (classifier,) = (m for m in plain.modules() if isinstance(m, nn.Linear))
    assert classifier.in_features == 16


@pytest.mark.parametrize("order", ["least squares", "magnitude", "Taylor"])
def test_a_stream_is_put_in_one_order_in_all_units(order: str) -> None:
    model = built()
    stem, first, second = (model.units[name].body for name in ("conv1", "layer1_0", "layer1_1"))
    readers = [first.get_submodule("layer1.0.conv1"), second.get_submodule("layer1.1.conv1")]
    with torch.no_grad():
        stem.conv1.weight[5] *= 9
        for reader in readers:
            reader.weight[:, 5] *= 3
    kept = [stem.conv1.weight[5].clone(), *(reader.weight[:, 5].clone() for reader in readers)]
    images = torch.randn(8, 3, 32, 32)
    before = model(images)
    if order == "least squares":
        calibrate(model, [(images, None)])
    elif order == "magnitude":
        sort_by_magnitude(model)
    else:
        sort_by_taylor(model, [(images, None)], lambda output, _: output.square().mean())
    found = [stem.conv1.weight[0], *(reader.weight[:, 0] for reader in readers)]
    for now, then in zip(found, kept, strict=True):  # rows of readers move too, inside a block
        assert torch.equal(now.flatten().sort().values, then.flatten().sort().values)
    torch.testing.assert_close(model(images), before, rtol=1e-4, atol=1e-4)


def built() -> ElasticModel:
    """With statistics and scales that are no ones and noughts."""
    torch.manual_seed(0)
    model = make_space(**RESNET, stream_ratios=HALVES).build()
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.uniform_(0.5, 1.5)
                norm.bias.normal_(std=0.3)
                norm.running_mean.normal_(std=0.1)
    return model.eval()


def test_repair_brings_narrow_streams_nearer_to_the_full_model() -> None:
    model, images = built(), torch.randn(64, 3, 32, 32)
    path = narrowest(model.space)
    seen, unseen = images[:48], images[48:]
    full = model(unseen)
    repair = Repair(model, seen, measure=True)
    model.own = {}
    with torch.no_grad(), model.active(path):
        sliced = (model(unseen) - full).norm()
    with torch.no_grad():
        repaired = (model.extract(path, repair([path])[path])(unseen) - full).norm()
    assert repaired < 0.7 * sliced


def test_channels_that_no_layer_can_narrow_are_said() -> None:
    space = make_space(
        model="convnext_atto",
        arguments=SHALLOW["convnext_atto"],
        input_shape=[3, 64, 64],
        stream_ratios=HALVES,
    )
    assert not space.streams
    assert (
        space.left["stream of stem.0"] == "its channels meet the parameter stages.0.blocks.0.gamma"
    )


def test_streams_through_what_runs_twice_keep_their_channels() -> None:
    model = "tests.search_spaces.blocks_models:Repeating"
    space = make_space(
        model=model,
        arguments={"width": 8},
        input_shape=[3, 8, 8],
        stream_ratios=HALVES,
        divisor=1,
    )
    assert [stream.whole.name for stream, _ in space.streams.values()] == ["narrow.conv2"]
    assert space.left["stream of stem.conv2"] == "it runs more than once"
    holds_the_invariants(space)


def test_exits_read_whole_streams() -> None:
    with pytest.raises(InvalidValueError, match="exits and stream_ratios can't be searched"):
        make_space(**RESNET, stream_ratios=HALVES, exits="stages")
