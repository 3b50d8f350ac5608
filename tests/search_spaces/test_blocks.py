"""The space blocks: the contract for models of several kinds, each against its original."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import search_spaces
from paretopath.elastic import ElasticModel
from search_spaces.blocks.space import BlocksSpace
from tests.search_spaces.space_contract import SpaceContract

MODELS: dict[str, dict[str, Any]] = {
    "resnet18": {"input_shape": [3, 32, 32]},
    "vgg11_bn": {"input_shape": [3, 32, 32], "model": "torchvision.models:vgg11_bn"},
    "mobilenetv3_small_100": {"input_shape": [3, 64, 64]},
}


def make_space(model: str, **options: Any) -> BlocksSpace:
    space = search_spaces.create("blocks", **{"model": model, **options})
    assert isinstance(space, BlocksSpace)
    return space


class TestBlocks(SpaceContract):
    paths = 2

    @pytest.fixture(scope="class", params=MODELS)
    def space(self, request: pytest.FixtureRequest) -> BlocksSpace:
        return make_space(request.param, **MODELS[request.param])

    def reference(self, model: ElasticModel) -> Callable[[torch.Tensor], torch.Tensor]:
        assert isinstance(model.space, BlocksSpace)
        original = model.space.reference()
        original.load_state_dict(model.space.original_state(model))
        return original
