"""The space blocks against the models that it takes apart."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from timm.models import mobilevit
from torch import Tensor

from paretopath.elastic import ElasticModel
from paretopath.errors import InvalidValueError, UntrainedClassifier
from search_spaces.blocks.space import BlocksSpace
from tests.search_spaces.blocks_models import SMALL, holds_the_invariants, make_space, original_of
from tests.search_spaces.space_contract import SpaceContract

PUBLISHED: dict[str, dict[str, Any]] = {
    "resnet18": {"input_shape": [3, 32, 32]},
    "resnet50": {"input_shape": [3, 32, 32]},
    "regnety_002": {"input_shape": [3, 32, 32]},
    "mobilenetv3_small_100": {"input_shape": [3, 64, 64]},
    "efficientnet_lite0": {"input_shape": [3, 64, 64]},
    "efficientnet_b0": {"input_shape": [3, 64, 64]},
    "convnext_atto": {"input_shape": [3, 64, 64]},
    "swin_tiny_patch4_window7_224": {"arguments": {"img_size": 64}},
    "mobilevit_xxs": {"input_shape": [3, 64, 64]},
    "densenet121": {"input_shape": [3, 32, 32]},
    "vgg11_bn": {"input_shape": [3, 32, 32], "arguments": {"mlp_ratio": 1 / 16}},
    "twins_svt_small": {"input_shape": [3, 64, 64]},
}

# The same architectures with fewer blocks and channels.
SHALLOW: dict[str, dict[str, Any]] = {
    "resnet50": {"layers": [1, 1, 2, 1], "channels": [16, 16, 32, 32]},
    "regnety_002": {"depth": 6, "w0": 8, "wa": 14.0, "wm": 2.0, "group_size": 4},
    "convnext_atto": {"depths": [1, 1, 2, 1], "dims": [8, 16, 32, 64]},
    "swin_tiny_patch4_window7_224": {"img_size": 64, "depths": [1, 1, 2, 1], "embed_dim": 24},
    "mobilevit_xxs": {"blocks": mobilevit.model_cfgs["mobilevit_xxs"].blocks[:4:2]},
    "densenet121": {"block_config": [2, 3, 2, 2], "growth_rate": 8},
    "vgg11_bn": {"mlp_ratio": 1 / 64, "num_classes": 5},
    "twins_svt_small": {"embed_dims": [8, 16, 16, 32], "depths": [2, 2, 1, 1], "img_size": 64},
}


class TestBlocks(SpaceContract):
    paths = 2

    @pytest.fixture(scope="class", params=SMALL.values(), ids=SMALL)
    def space(self, request: pytest.FixtureRequest) -> BlocksSpace:
        return make_space(**request.param)

    def reference(self, model: ElasticModel) -> Callable[[Tensor], Tensor]:
        return original_of(model)


@pytest.mark.parametrize("name", SHALLOW)
def test_architectures_run_as_they_are_narrowed_and_extracted(name: str) -> None:
    holds_the_invariants(
        make_space(**{"model": name, **PUBLISHED[name], "arguments": SHALLOW[name]})
    )


def test_arguments_with_defaults_and_blocks_that_keep_results_are_no_hindrance() -> None:
    model = "tests.search_spaces.blocks_models:WithDefaults"
    space = make_space(model=model, input_shape=[3, 4, 4], divisor=1)
    names = {decision.name for decision in space.decisions}
    assert names == {f"blocks.{i}.{what}" for i in (1, 2) for what in ("run", "keep_ratio")}
    holds_the_invariants(space)


def asking(asks: str) -> BlocksSpace:
    model = "tests.search_spaces.blocks_models:Asking"
    return make_space(model=model, arguments={"asks": asks}, input_shape=[3, 4, 4], divisor=1)


def test_what_a_model_asks_of_shapes_and_types_is_no_hindrance() -> None:
    space = asking("shapes")
    names = {decision.name for decision in space.decisions}
    assert names == {f"inner.blocks.{i}.{what}" for i in (1, 2) for what in ("run", "keep_ratio")}
    holds_the_invariants(space)


def test_a_model_that_can_not_be_traced_is_one_unit() -> None:
    space = asking("count")
    assert [decision.name for decision in space.decisions] == ["model.keep_ratio"]
    assert "can't be traced" in space.left["model"]
    holds_the_invariants(space)


def test_a_model_that_looks_at_the_content_of_images_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="must run without looking at what its tensors"):
        asking("content")


def test_a_folder_of_transformers_is_a_model_and_its_weights(tmp_path: Path) -> None:
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    config.image_size, config.patch_size, config.num_labels = 16, 8, 5
    known = transformers.ViTForImageClassification(config).eval()
    known.save_pretrained(tmp_path)
    space = make_space(model=str(tmp_path), divisor=1)
    kinds = ("run", "head_ratio", "keep_ratio")
    blocks = [f"model.vit.layers.{i}.{what}" for i in (0, 1) for what in kinds]
    assert [decision.name for decision in space.decisions] == blocks
    holds_the_invariants(space)
    images = torch.randn(2, 3, 16, 16)
    weights = str(tmp_path / "model.safetensors")
    with torch.no_grad():
        torch.testing.assert_close(space.build(weights)(images), known(images).logits)
    other = make_space(model=str(tmp_path), arguments={"num_labels": 7}, divisor=1)
    with pytest.warns(UntrainedClassifier, match="but the model's has 7"):
        other.build(weights)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "no config.json in it"),
        ("{}", "can't be read"),
        ('{"model_type": "bert"}', "must be an image classifier, but transformers has none of"),
        ('{"model_type": "vit"}', "arguments.nonsense must be a field of ViTConfig"),
    ],
)
def test_a_folder_that_is_no_classifier_is_said_to_be_none(
    config: str | None, message: str, tmp_path: Path
) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    arguments = {"nonsense": 1} if config and "vit" in config else {}
    with pytest.raises(InvalidValueError, match=message):
        make_space(model=str(tmp_path), arguments=arguments)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_run_as_they_are_narrowed_and_extracted(name: str) -> None:
    holds_the_invariants(make_space(model=name, **PUBLISHED[name]))
