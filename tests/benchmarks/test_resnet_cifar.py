"""The benchmarks' CIFAR ResNets hold what every family holds."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from resnet_cifar import Block, CifarResNetSpace, Head, PlainResNet, Stem

from paretopath.elastic import ElasticModel, ElasticSpace
from paretopath.errors import InvalidValueError
from tests.search_spaces.space_contract import SpaceContract


def published(model: ElasticModel) -> PlainResNet:
    """The network under its published names, with the elastic model's weights."""
    net = PlainResNet((len(model.chain) - 2) * 2 + 2, model.space.num_classes).eval()  # type: ignore[attr-defined]
    parts: dict[str, nn.Module] = {}
    blocks = iter(net.blocks)
    for unit in copy.deepcopy(model).chain:
        if isinstance(unit, Stem):
            parts |= {"conv1": unit.conv, "bn1": unit.norm}
        elif isinstance(unit, Block):
            next(blocks).load_state_dict(unit.state_dict())
        elif isinstance(unit, Head):
            parts["linear"] = unit.linear
    for name, part in parts.items():
        getattr(net, name).load_state_dict(part.state_dict())
    return net


class TestCifarResNet(SpaceContract):
    @pytest.fixture(scope="class")
    def space(self) -> ElasticSpace:
        return CifarResNetSpace(depth=14, image_size=8)

    def reference(self, model: ElasticModel) -> Callable[[Tensor], Tensor]:
        return published(model)


def test_a_published_state_dict_loads(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = PlainResNet(8).eval()
    state = {f"module.{name}": t for name, t in net.state_dict().items()}
    counted = [name for name in state if name.endswith("num_batches_tracked")]
    torch.save({"state_dict": {n: t for n, t in state.items() if n not in counted}}, tmp_path / "8")
    images = torch.randn(2, 3, 8, 8)
    model = CifarResNetSpace(depth=8, image_size=8).build(str(tmp_path / "8"))
    with torch.inference_mode():
        torch.testing.assert_close(model(images), net(images))


def test_a_depth_that_makes_no_whole_blocks_is_refused() -> None:
    with pytest.raises(InvalidValueError, match=r"6 n \+ 2 .* got 54; nearest: 56"):
        CifarResNetSpace(depth=54)
