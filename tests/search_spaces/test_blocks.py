"""The space blocks against the models that it takes apart."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import transformers
from timm.models import mobilevit
from torch import Tensor, nn

import search_spaces
from paretopath.cost.table import CostTable
from paretopath.elastic import ElasticModel
from paretopath.elastic.exits import exit_paths
from paretopath.errors import InvalidValueError, UntrainedClassifier
from paretopath.weights.new import new_parameters
from search_spaces.blocks.space import BlocksSpace
from search_spaces.resizing import resized
from tests.search_spaces.space_contract import MacsOnly, SpaceContract, torchs_count

SMALL: dict[str, dict[str, Any]] = {
    "resnet": {
        "model": "resnet26",
        "arguments": {"channels": [8, 16, 16, 32], "num_classes": 7},
        "input_shape": [3, 32, 32],
        "exits": "stages",
    },
    "squeeze and excitation, normalisations with activations, padding by size": {
        "model": "test_efficientnet",
        "arguments": {"num_classes": 7, "in_chans": 1, "pad_type": "same"},
        "input_shape": [1, 64, 64],
        "input_scales": [0.75, 1.0],
    },
    "attention's heads, with a table for them": {
        "model": "swin_tiny_patch4_window7_224",
        "arguments": {
            **{"img_size": 32, "window_size": 4, "depths": [1, 1], "num_heads": [2, 4]},
            **{"embed_dim": 16, "num_classes": 5},
        },
    },
    "one's own, with long skips": {
        "model": "tests.search_spaces.test_blocks:UNet",
        "arguments": {"width": 8, "num_classes": 3},
        "input_shape": [3, 16, 16],
    },
}

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

# Each kind of attention; all have four heads.
ATTENTION: dict[str, dict[str, Any]] = {
    "timm's": {
        "model": "vit_tiny_patch16_224",
        "arguments": {
            **{"img_size": 16, "patch_size": 8, "depth": 1, "embed_dim": 16, "num_heads": 4},
            "qk_norm": True,
        },
    },
    "PyTorch's": {
        "model": "torchvision.models.vision_transformer:VisionTransformer",
        "arguments": {
            **{"image_size": 16, "patch_size": 8, "num_layers": 1, "hidden_dim": 16},
            **{"num_heads": 4, "mlp_dim": 32},
        },
        "input_shape": [3, 16, 16],
    },
    "with rotary positions": {
        "model": "eva02_tiny_patch14_224",
        "arguments": {
            **{"img_size": 16, "patch_size": 8, "depth": 1, "embed_dim": 32, "num_heads": 4},
            **{"attn_type": "rope", "num_classes": 5},
        },
    },
}


class Pair(nn.Module):
    """Two convolutions, the channels between them nobody else's."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(self.norm1(self.conv1(x)).relu()).relu()
        return out


class UNet(nn.Module):
    """A small encoder and decoder whose features skip over what lies between."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.fine = Pair(3, width)
        self.coarse = Pair(width, 2 * width)
        self.bottom = Pair(2 * width, 2 * width)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.merged = Pair(2 * width, width)
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)
        coarse = self.coarse(nn.functional.max_pool2d(fine, 2))
        coarse = coarse + self.bottom(coarse)
        up = self.up(coarse)[:, :, : fine.shape[2], : fine.shape[3]]
        out: Tensor = self.head(self.merged(torch.cat([fine, up], dim=1)))
        return out


class Keeping(nn.Module):
    """Adds to its input, and keeps what it computed on the way."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.into = nn.Linear(width, 2 * width)
        self.back = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        self.kept = self.into(x)
        out: Tensor = x + self.back(self.kept.relu())
        return out


class WithDefaults(nn.Module):
    """Takes more than images, with defaults."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.blocks = nn.Sequential(nn.Linear(3, width), Keeping(width), Keeping(width))
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor, is_causal: bool = False, scale: float = 1.0) -> Tensor:
        out: Tensor = self.head(self.blocks(x.flatten(2).transpose(1, 2)).mean(1))
        return -out if is_causal else out


class Unmasked(nn.Module):
    """Images, and which of their pixels count: None where all do."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return x, None


class Asking(nn.Module):
    """A model in a model, that asks what its images are, how many, or what is in them."""

    def __init__(self, asks: str) -> None:
        super().__init__()
        self.unmasked, self.inner = Unmasked(), WithDefaults()
        self.asks = asks

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != self.inner.head.weight.dtype or x.shape[-1] % 4:
            raise ValueError("not made for these images")
        x, mask = self.unmasked(x)
        if mask is not None and mask.any():
            x = x * mask
        if len(x) > 99 or (self.asks == "content" and x.max() > 99):
            x = x / 2
        if self.asks == "count":
            for _ in range(x.shape[0] // 99):
                x = x / 2
        out: Tensor = self.inner(x)
        return out


def make_space(**options: Any) -> BlocksSpace:
    space = search_spaces.create("blocks", **options)
    assert isinstance(space, BlocksSpace)
    return space


def original_of(model: ElasticModel) -> Callable[[Tensor], Tensor]:
    """The original model, from its own library, with an elastic model's weights."""
    assert isinstance(model.space, BlocksSpace)
    original = model.space.reference()
    original.load_state_dict(model.space.original_state(model))
    return original


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


@pytest.mark.parametrize("kind", ATTENTION)
def test_heads_of_attention_are_decisions(kind: str) -> None:
    space = make_space(**ATTENTION[kind], head_ratios=[0.25, 0.5, 0.7, 1.0])
    (heads,) = (d for d in space.decisions if d.name.endswith(".head_ratio"))
    assert heads.values == (0.25, 0.5, 0.7, 1.0)  # 1, 2, 3 and 4 of them
    holds_the_invariants(space)
    assert not any("attn" in name or "attention" in name for name in space.left)


def test_attention_that_reads_weights_past_its_layers_keeps_its_heads() -> None:
    arguments = {"img_size": 16, "patch_size": 8, "depth": 1, "embed_dim": 32, "num_heads": 4}
    space = make_space(model="beit_base_patch16_224", arguments=arguments)
    assert space.left["blocks.0.attn"] == "it reads weights of its layers past them"
    holds_the_invariants(space)


def test_one_head_less_is_what_the_rest_of_them_give() -> None:
    space = make_space(**ATTENTION["PyTorch's"], head_ratios=[0.75, 1.0])
    model = space.build()
    attention = model.get_submodule("units.encoder_layers_encoder_layer_0.body")
    (out,) = (m for n, m in attention.named_modules() if n.endswith("self_attention.out"))
    images = torch.randn(2, *space.input_shape)
    path = {**space.full, "encoder.layers.encoder_layer_0.head_ratio": 0.75}
    with torch.no_grad(), model.active(path):
        found = model(images)
        out.weight[:, -4:] = 0  # type: ignore[index]
    with torch.no_grad():
        torch.testing.assert_close(model(images), found)


def test_arguments_with_defaults_and_blocks_that_keep_results_are_no_hindrance() -> None:
    model = "tests.search_spaces.test_blocks:WithDefaults"
    space = make_space(model=model, input_shape=[3, 4, 4], divisor=1)
    names = {decision.name for decision in space.decisions}
    assert names == {f"blocks.{i}.{what}" for i in (1, 2) for what in ("run", "keep_ratio")}
    holds_the_invariants(space)


def asking(asks: str) -> BlocksSpace:
    model = "tests.search_spaces.test_blocks:Asking"
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


def holds_the_invariants(space: BlocksSpace) -> None:
    """The original's output, the same in place and extracted, and torch's own counts."""
    torch.manual_seed(0)
    model = space.build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    images = torch.randn(2, *space.input_shape)
    table = CostTable(space, MacsOnly())
    with torch.no_grad():
        torch.testing.assert_close(model(images), original_of(model)(images), rtol=1e-5, atol=1e-5)
    for path in (space.full, space.smallest, space.sample(np.random.default_rng(0))):
        static = model.extract(path)
        with torch.no_grad(), model.active(path):
            torch.testing.assert_close(static(images), model(images), rtol=1e-5, atol=1e-5)
        costs = table([path])
        flops, params, _ = torchs_count(static, torch.empty(1, *space.input_shape, device="meta"))
        assert (costs.macs[0] * 2, costs.params[0]) == (flops, params)
    assert table([space.smallest]).macs[0] < table([space.full]).macs[0]


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


@pytest.mark.parametrize("name", ["resnet", "one's own, with long skips"])
def test_a_path_at_another_size_is_the_original_on_smaller_images(name: str) -> None:
    space = make_space(**SMALL[name], input_scales=[0.75, 1.0])
    model = space.build()
    images = torch.randn(2, *space.input_shape)
    path = space.canonical({"input_scale": 0.75})
    with torch.no_grad(), model.active(path):
        expected = original_of(model)(resized(images, 0.75))
        torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)


def test_sizes_that_a_model_can_not_take_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="input_scales: model can't take images of 8 x 8 "):
        make_space(**ATTENTION["timm's"], input_scales=[0.5, 1.0])


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
