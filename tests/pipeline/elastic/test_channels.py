"""Groups of channels: units declare them, one function puts their channels in another order."""

import pytest
import torch
from torch import nn

from paretopath.elastic import (
    ChannelGroup,
    Choice,
    ElasticBatchNorm2d,
    ElasticConv2d,
    Reader,
    State,
    Unit,
)
from paretopath.elastic.channels import columns, permute


class TwoBranches(Unit):
    """Two branches of heads of three channels, side by side before the layer that reads them."""

    def __init__(self) -> None:
        super().__init__("two")
        self.left = ElasticConv2d(3, 6, (1, 1))
        self.norm = ElasticBatchNorm2d(6)
        self.right = ElasticConv2d(3, 12, (1, 1))
        self.filters = ElasticConv2d(12, 12, (3, 3), groups=12, padding=1)
        self.scale = nn.Parameter(torch.randn(1, 4))
        self.out = ElasticConv2d(18, 5, (3, 3))
        self.out.segments = (6, 12)

    def forward(self, state: State, choice: Choice) -> State:
        left = self.norm(self.left(state)).relu()
        right = self.filters(self.right(state)).relu() * self.scale.repeat_interleave(3).view(
            1, -1, 1, 1
        )
        return self.out(torch.cat([left, right], dim=1), None, (6, 12))

    def extract(self, choice: Choice) -> nn.Module:
        raise AssertionError("groups are of the elastic unit alone")

    def channel_groups(self) -> list[ChannelGroup]:
        return [
            ChannelGroup(6, ("left", "norm"), (Reader("out"),)),
            ChannelGroup(4, ("right", "filters"), (Reader("out", 1),), ("scale",)),
        ]


class Outer(Unit):
    """A unit around another, as a family's."""

    def __init__(self, inner: Unit) -> None:
        super().__init__("outer")
        self.inner = inner

    def forward(self, state: State, choice: Choice) -> State:
        return self.inner(state, choice)

    def extract(self, choice: Choice) -> nn.Module:
        return self.inner.extract(choice)

    def channel_groups(self) -> list[ChannelGroup]:
        return [group.inside("inner") for group in self.inner.channel_groups()]


@pytest.fixture
def unit() -> TwoBranches:
    torch.manual_seed(0)
    unit = TwoBranches().eval()
    with torch.no_grad():
        unit.norm.running_mean.normal_()
        unit.norm.running_var.uniform_(0.5, 2)
        unit.norm.weight.normal_()
    return unit


@pytest.mark.parametrize("wrapped", [False, True])
@torch.no_grad()
def test_channels_in_another_order_are_the_same_function(unit: TwoBranches, wrapped: bool) -> None:
    images = torch.randn(2, 3, 5, 5)
    before, heads = unit(images, {}), unit.right.weight.clone()
    outer = Outer(unit) if wrapped else unit
    for group in outer.channel_groups():
        permute(outer, group, torch.arange(group.entries).flip(0))
    torch.testing.assert_close(unit(images, {}), before)
    assert torch.equal(unit.right.weight[:3], heads[-3:])  # the last head's channels stay together


def test_columns_are_those_of_the_group_s_own_segment(unit: TwoBranches) -> None:
    left, right = unit.channel_groups()
    assert columns(unit, left, left.readers[0]).flatten().tolist() == list(range(6))
    assert columns(unit, right, right.readers[0])[1].tolist() == [9, 10, 11]
