"""The space vit against timm."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from timm.layers import SwiGLU
from timm.models.vision_transformer import ParallelScalingBlock, VisionTransformer

import search_spaces
from paretopath.calibration.importance import sort_by_magnitude
from paretopath.elastic import ElasticModel
from paretopath.errors import (
    CheckpointError,
    InvalidPathError,
    InvalidValueError,
    UntrainedClassifier,
)
from paretopath.weights.new import new_parameters
from search_spaces.exit_heads import OWN_HEADS
from search_spaces.vit import VitSpace
from tests.search_spaces.space_contract import SpaceContract

ARGUMENTS = {
    "img_size": 8,
    "patch_size": 2,
    "in_chans": 1,
    "num_classes": 10,
    "embed_dim": 16,
    "depth": 3,
    "num_heads": 4,
}
VARIANTS = {
    "mean pooling": {"global_pool": "avg", "class_token": False},
    "registers, layer scale, normed queries": {
        "reg_tokens": 2,
        "init_values": 0.1,
        "qk_norm": True,
        "no_embed_class": True,
    },
    "norms elsewhere, pooled by attention": {
        "pre_norm": True,
        "fc_norm": True,
        "global_pool": "map",
        "norm_layer": "rmsnorm",
    },
    "padded images of any size": {
        "img_size": 9,
        "dynamic_img_pad": True,
        "dynamic_img_size": True,
        "qkv_bias": False,
        "proj_bias": False,
    },
}


def make_space(
    *, exit_head: str = "reuse", last_head: str = "reuse", **arguments: object
) -> VitSpace:
    space = search_spaces.create(
        "vit",
        arguments={**ARGUMENTS, **arguments},
        exits=[1, 2, 3],
        skippable=[1, 2],
        heads=[1, 2, 4],
        exit_head=exit_head,
        last_head=last_head,
    )
    assert isinstance(space, VitSpace)
    return space


class VitContract(SpaceContract):
    """The invariants of every space, against timm's model."""

    def reference(self, model: ElasticModel) -> Callable[[torch.Tensor], torch.Tensor]:
        assert isinstance(model.space, VitSpace)
        original = model.space.reference()
        original.load_state_dict(timm_state(model, original))
        return original


class TestVit(VitContract):
    """A class token, over 200 random paths."""

    paths = 200

    @pytest.fixture(scope="class")
    def space(self) -> VitSpace:
        return make_space()


class TestVitVariants(VitContract):
    """Other forms of timm's transformer."""

    @pytest.fixture(scope="class", params=VARIANTS.values(), ids=VARIANTS.keys())
    def space(self, request: pytest.FixtureRequest) -> VitSpace:
        return make_space(**request.param)


class TestVitExitHeads(VitContract):
    """Exits that are heads of their own."""

    paths = 30

    @pytest.fixture(scope="class", params=["attention", "convolution"])
    def space(self, request: pytest.FixtureRequest) -> VitSpace:
        return make_space(exit_head=request.param, last_head=request.param)

    def reference(self, model: ElasticModel) -> Callable[[torch.Tensor], torch.Tensor]:
        """timm's transformer up to its last block, and the head."""
        assert isinstance(model.space, VitSpace)
        trunk = model.space.reference()
        trunk.norm = trunk.head = torch.nn.Identity()
        trunk.load_state_dict(timm_state(model, trunk))
        head = model.extract(model.space.full).get_submodule("exits_3")
        return lambda images: head(trunk.forward_features(images))


@pytest.mark.parametrize("arguments", VARIANTS.values(), ids=VARIANTS.keys())
@pytest.mark.parametrize("kind", OWN_HEADS)
def test_heads_of_their_own_fit_whatever_tokens_there_are(
    kind: str, arguments: dict[str, object]
) -> None:
    space = make_space(exit_head=kind, last_head=kind, **arguments)
    model = space.build()
    images = torch.randn(3, *space.input_shape)
    for value in space["exit"].values:
        with torch.inference_mode(), model.active({"exit": value}):
            assert model(images).shape == (3, 10)
            torch.testing.assert_close(model.extract({"exit": value})(images), model(images))


def test_heads_that_weights_do_not_bring_are_new(tmp_path: Path) -> None:
    file = str(tmp_path / "vit.safetensors")
    save_file(make_space().reference().state_dict(), file)

    def new(**heads: str) -> set[str]:
        model = make_space(**heads).build(file)
        return {name.split(".")[1] for name in new_parameters(model)}

    assert new() == new(exit_head="mlp") == {"exits_1", "exits_2"}
    assert new(last_head="linear") == {"exits_1", "exits_2", "exits_3"}
    with pytest.raises(InvalidValueError, match=r"exit_head.*'liner'"):
        make_space(exit_head="liner")


def timm_state(model: ElasticModel, original: VisionTransformer) -> dict[str, torch.Tensor]:
    """The elastic model's weights under timm's names, through its extracted full path."""
    static = model.extract(model.space.full)
    state: dict[str, torch.Tensor] = {}
    for name, tensor in static.state_dict().items():
        unit, _, rest = name.partition(".")
        if unit.startswith("blocks_"):
            state[f"blocks.{unit.removeprefix('blocks_')}.{rest}"] = tensor
        else:
            state[rest.removeprefix("vit.")] = tensor
    return {name: state[name] for name in original.state_dict()}


def test_weights_of_a_file_give_the_original_outputs(tmp_path) -> None:
    space = make_space()
    original = space.reference()
    file = tmp_path / "vit.safetensors"
    save_file(original.state_dict(), file)
    images = torch.randn(2, 1, 8, 8)
    with torch.inference_mode():
        torch.testing.assert_close(space.build(str(file))(images), original(images))


def test_a_classifier_for_other_classes_starts_anew(tmp_path) -> None:
    file = tmp_path / "vit.safetensors"
    save_file(make_space(num_classes=7).reference().state_dict(), file)
    with pytest.warns(UntrainedClassifier, match="7 classes, but the model's has 10"):
        model = make_space().build(str(file))
    assert model(torch.randn(2, 1, 8, 8)).shape == (2, 10)
    units = model.chain
    for unit in units:
        new = set(new_parameters(unit))
        everything = {name for name, _ in unit.named_parameters()}
        if unit is units[-1]:  # its norm is the checkpoint's
            assert new == {"head.vit.head.weight", "head.vit.head.bias"}
        else:
            assert new == (everything if unit.is_exit else set()), unit.name


def test_a_backbone_without_a_head_leaves_exits_and_classifier_new(tmp_path) -> None:
    file = tmp_path / "backbone.safetensors"
    backbone = VisionTransformer(**ARGUMENTS | {"num_classes": 0})
    save_file(backbone.state_dict(), file)
    with pytest.warns(UntrainedClassifier, match="no classifier, but the model's has 10"):
        model = make_space().build(str(file))
    new = new_parameters(model)
    assert {name.split(".")[1] for name in new} == {
        unit.name.replace(".", "_") for unit in model.chain if unit.is_exit
    }
    state = dict(model.named_parameters())
    original = dict(backbone.named_parameters())
    assert torch.equal(state["units.stem.vit.pos_embed"], original["pos_embed"])


def test_weights_of_another_size_are_refused_by_name(tmp_path) -> None:
    file = tmp_path / "vit.safetensors"
    save_file(make_space(embed_dim=32).reference().state_dict(), file)
    with pytest.raises(CheckpointError, match=r"must have shape"):
        make_space().build(str(file))


def test_a_timm_name_makes_timms_model() -> None:
    space = search_spaces.create("vit", model="vit_tiny_patch16_224")
    assert [d for d in space["exit"].values] == [3, 6, 9, 12]
    assert space.input_shape == (3, 224, 224)
    # heads 2 ways, ratios 4 ways, or skipped: 9 forms of a block
    assert space.size == 9**3 + 9**6 + 9**9 + 9**12


def test_size_counts_the_distinct_canonical_paths() -> None:
    space = search_spaces.create(
        "vit", arguments={**ARGUMENTS, "depth": 2}, heads=[4], mlp_ratios=[0.5, 1.0], exits=[1, 2]
    )
    everything = np.stack(
        np.meshgrid(*[range(len(d.values)) for d in space.decisions], indexing="ij"), -1
    ).reshape(-1, len(space.decisions))
    assert len(set(space.decode(space.canonical_encoded(everything)))) == space.size


def test_decisions_beyond_the_exit_and_in_skipped_blocks_are_absent() -> None:
    space = make_space()
    path = space.canonical({"exit": 2, "blocks.1.run": False, "blocks.2.heads": 1})
    assert set(path) == {"exit", "blocks.0.heads", "blocks.0.mlp_ratio", "blocks.1.run"}


@torch.no_grad()
def test_sorting_puts_the_channels_that_matter_first() -> None:
    torch.manual_seed(0)
    space = make_space()
    model = space.build()
    block = model.units["blocks_0"].block
    dead = torch.arange(0, 64, 2)
    block.mlp.fc1.weight[dead] = 0
    block.mlp.fc1.bias[dead] = 0
    block.mlp.fc2.weight[:, dead] = 0
    images = torch.randn(4, 1, 8, 8)
    full = model(images)
    with torch.enable_grad():
        sort_by_magnitude(model)
    torch.testing.assert_close(model(images), full, rtol=1e-5, atol=1e-5)
    with model.active({"blocks.0.mlp_ratio": 0.5}):  # only dead channels went
        torch.testing.assert_close(model(images), full, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mlp_layer": "SwiGLU"}, "mlp_layer"),
        ({"mlp_layer": SwiGLU}, "mlp_layer of this transformer is another"),
        ({"block_fn": "ParallelScalingBlock"}, "block_fn"),
        ({"block_fn": ParallelScalingBlock}, "block_fn of this transformer is another"),
        ({"attn_layer": "diff"}, "attn_layer of this transformer is another"),
        ({"embed_layer": "HybridEmbed"}, "embed_layer"),
        ({"scale_attn_norm": True}, "scale_attn_norm of this transformer"),
        ({"scale_mlp_norm": True}, "scale_mlp_norm of this transformer"),
        ({"img_size": 9, "dynamic_img_pad": True}, "dynamic_img_pad needs dynamic_img_size"),
        ({"class_token": False}, "with class_token False .*Token pooling"),
        ({"global_pool": ""}, "global_pool must be token, .* but got ''"),
        ({"num_classes": 0}, "num_classes must be at least 1, but got 0"),
        ({"weight_init": "skip"}, "weight_init must give weights"),
        ({"norm_layer": "batchnorm1d"}, "running_mean should contain 17 elements"),
    ],
)
def test_transformers_that_cannot_be_narrowed_are_refused_by_option(
    arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidValueError, match=message) as refused:
        make_space(**arguments)
    assert "not callable" not in str(refused.value)


def test_a_model_of_timms_with_other_layers_is_refused_by_option() -> None:
    with pytest.raises(InvalidValueError, match="mlp_layer of this transformer is another"):
        search_spaces.create("vit", model="vit_giant_patch14_dinov2")
    with pytest.raises(InvalidValueError, match="num_classes must be at least 1, but got 0"):
        search_spaces.create("vit", model="vit_small_patch14_dinov2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exits": [0, 3]}, r"exits\[0\] must be at least 1, but got 0"),
        ({"exits": [1, 2]}, r"exits must be above 0 and include 3"),
        ({"mlp_ratios": [0.5]}, r"mlp_ratios must include 1.0"),
        ({"skippable": "al"}, r"did you mean 'all'"),
        (
            {"arguments": {**ARGUMENTS, "mlp_layer": "swiglu"}},
            r"arguments\.mlp_layer must be a subclass of Module",
        ),
        (
            {"model": "vit_tiny_patch61_224", "arguments": {}},
            r"did you mean 'vit_tiny_patch16_224'",
        ),
        (
            {"model": "resnet18", "arguments": {}},
            r"model must be a timm VisionTransformer, but 'resnet18' is a ResNet",
        ),
        ({"depth": 3}, r"no option 'depth'; legal: model, arguments"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        search_spaces.create("vit", **{"arguments": ARGUMENTS, **options})


def test_wrong_choices_name_the_decision_and_its_values() -> None:
    space = make_space()
    with pytest.raises(InvalidPathError, match=r"'exit' can't be 4; legal: 1, 2, 3"):
        space.canonical({"exit": 4})
    with pytest.raises(ValueError, match=r"no decision 'exits'.*did you mean 'exit'"):
        space.canonical({"exits": 2})


def test_an_unknown_family_names_the_nearest() -> None:
    with pytest.raises(InvalidValueError, match="did you mean 'vit'"):
        search_spaces.create("vti")
