"""One set of weights that runs any path: layers, units, the chain of them, families by name."""

from paretopath.elastic.batched import Batched
from paretopath.elastic.layers import (
    ElasticBatchNorm2d,
    ElasticConv2d,
    ElasticLayer,
    ElasticLinear,
    fill,
)
from paretopath.elastic.model import (
    ChannelGroup,
    Choice,
    ElasticModel,
    ElasticSpace,
    Reader,
    State,
    Step,
    Unit,
)
from paretopath.elastic.stream import Onto

__all__ = [
    "Batched",
    "ChannelGroup",
    "Choice",
    "ElasticBatchNorm2d",
    "ElasticConv2d",
    "ElasticLayer",
    "ElasticLinear",
    "ElasticModel",
    "ElasticSpace",
    "Onto",
    "Reader",
    "State",
    "Step",
    "Unit",
    "fill",
]
