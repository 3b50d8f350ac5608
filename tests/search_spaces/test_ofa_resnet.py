"""The Once-For-All ResNet-50: invariants, published numbers, weights' names, predictor inputs."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

import search_spaces
from paretopath.cost.table import CostTable
from paretopath.elastic import ElasticModel
from paretopath.errors import (
    CheckpointError,
    InvalidPathError,
    InvalidValueError,
    UntrainedClassifier,
)
from paretopath.paths import ABSENT, ExecutionPath
from paretopath.weights.files import write_state
from paretopath.weights.new import new_parameters
from search_spaces.ofa_resnet import WIDTHS, OfaResNet50Space
from search_spaces.ofa_resnet_units import BASE_DEPTHS, EXPANDS, OfaResNet50, channels, middle_width
from tests.search_spaces.space_contract import MacsOnly, SpaceContract

State = Mapping[str, Tensor]

# SHA-256 of the "name (shape)" lines of the official OFAResNets(depth_list=[0, 1, 2],
# expand_ratio_list=[0.2, 0.25, 0.35], width_mult_list=[0.65, 0.8, 1.0]).state_dict(),
# github.com/mit-han-lab/once-for-all at f03b267.
OFFICIAL_STATE = "d17fe20af833f34936694e6771e2c2db0de306a4e6fd86c7c58ff3aefa3496cc"


def convolve(state: State, name: str, x: Tensor, stride: int = 1) -> Tensor:
    """A convolution and its normalisation on weights by their official names."""
    weight = state[f"{name}.conv.conv.weight"]
    x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
    norm = [state[f"{name}.bn.bn.{k}"] for k in ("running_mean", "running_var", "weight", "bias")]
    return F.batch_norm(x, *norm, eps=1e-5)


def resnet50d(state: State, x: Tensor) -> Tensor:
    """The largest network, without any of the code under test."""
    x = F.relu(convolve(state, "input_stem.0", x, 2))
    x = x + F.relu(convolve(state, "input_stem.1.conv", x))
    x = F.max_pool2d(F.relu(convolve(state, "input_stem.2", x)), 3, 2, 1)
    block = 0
    for stage, depth in enumerate((4, 4, 6, 4)):
        for i in range(depth):
            name, stride = f"blocks.{block}", 2 if stage and i == 0 else 1
            out = F.relu(convolve(state, f"{name}.conv1", x))
            out = F.relu(convolve(state, f"{name}.conv2", out, stride))
            if i == 0:
                x = F.avg_pool2d(x, stride, stride, ceil_mode=True)
                x = convolve(state, f"{name}.downsample", x)
            x = F.relu(convolve(state, f"{name}.conv3", out) + x)
            block += 1
    x = x.mean(3).mean(2)
    return F.linear(
        x, state["classifier.linear.linear.weight"], state["classifier.linear.linear.bias"]
    )


def random_official_state(classes: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    with torch.device("meta"):
        shapes = OfaResNet50(classes).state_dict()
    state = {}
    for name, meta in shapes.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.zeros((), dtype=torch.long)
            continue
        tensor = torch.randn(meta.shape, generator=generator)
        if meta.dim() > 1:
            state[name] = tensor * meta[0].numel() ** -0.5
        elif name.endswith(("var", "bn.weight")):
            state[name] = 0.5 + tensor.sigmoid()
        else:
            state[name] = 0.1 * tensor
    return state


def official_state(model: ElasticModel) -> dict[str, Tensor]:
    """A model's weights by their official names: the units hold them in the same order."""
    with torch.device("meta"):
        names = OfaResNet50(10).state_dict()
    return dict(zip(names, model.state_dict().values(), strict=True))


@pytest.fixture(scope="module")
def published() -> OfaResNet50Space:
    return OfaResNet50Space()


class TestContract(SpaceContract):
    paths = 2

    @pytest.fixture(scope="class")
    def space(self) -> OfaResNet50Space:
        return OfaResNet50Space(resolutions=(32, 48, 72), num_classes=10)

    @pytest.fixture(scope="class")
    def model(
        self, space: OfaResNet50Space, tmp_path_factory: pytest.TempPathFactory
    ) -> ElasticModel:
        file = tmp_path_factory.mktemp("weights") / "supernet.safetensors"
        write_state(file, random_official_state(10))
        return space.build(checkpoint=str(file))

    def reference(self, model: ElasticModel) -> Callable[[Tensor], Tensor]:
        return lambda images: resnet50d(official_state(model), images)

    def test_sorting_channels_leaves_the_full_path_as_it_is(
        self, space: OfaResNet50Space, model: ElasticModel, images: Tensor
    ) -> None:
        # elastic training has ordered the channels: another order would break every narrower path
        assert not [group for unit in model.chain for group in unit.channel_groups()]


def test_space_is_found_by_its_name() -> None:
    space = search_spaces.create("ofa_resnet50", resolutions=[192, 128])
    assert isinstance(space, OfaResNet50Space)
    assert space["image_size"].values == (128, 192)
    assert space.input_shape == (3, 192, 192)


def test_number_of_paths_is_the_published_one_without_double_counting(
    published: OfaResNet50Space,
) -> None:
    assert published.published_encodings == 19_671_318_375_696
    assert published.size * 3 == published.published_encodings * 2


def test_macs_of_the_published_extremes(published: OfaResNet50Space) -> None:
    smallest = published.smallest
    costs = CostTable(published, MacsOnly())(
        [
            published.canonical({"image_size": 224}),
            published.canonical({**smallest, "image_size": 224}),
            published.canonical({**smallest, "image_size": 128}),
        ]
    )
    assert [f"{macs / 1e6:.3f}" for macs in costs.macs] == ["7491.644", "962.192", "315.080"]


def test_weights_have_the_official_names_and_shapes() -> None:
    with torch.device("meta"):
        state = OfaResNet50(1000).state_dict()
    lines = [f"{name} {tuple(tensor.shape)}" for name, tensor in state.items()]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == OFFICIAL_STATE


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        ("stem.mid_width", [24, 24, 32]),
        ("stem.width", [40, 48, 64]),
        ("stages.0.width", [168, 208, 256]),
        ("stages.1.width", [336, 408, 512]),
        ("stages.2.width", [664, 816, 1024]),
        ("stages.3.width", [1328, 1640, 2048]),
    ],
)
def test_channels_round_as_published(decision: str, expected: list[int]) -> None:
    assert [channels(decision, {decision: width}) for width in WIDTHS] == expected


def test_stem_middles_of_24_channels_are_one_path(published: OfaResNet50Space) -> None:
    narrow, middle, full = (published.canonical({"stem.mid_width": w}) for w in WIDTHS)
    assert narrow == middle != full
    assert middle["stem.mid_width"] == 0.65


def test_middle_width_matters_without_the_residual_stem(published: OfaResNet50Space) -> None:
    without = [published.canonical({"stem.depth": 0, "stem.mid_width": w}) for w in (0.65, 1.0)]
    costs = CostTable(published, MacsOnly())(without)
    assert costs.macs[0] < costs.macs[1]


def test_blocks_beyond_a_stages_depth_have_no_decision(published: OfaResNet50Space) -> None:
    path = published.canonical({"stages.2.depth": 1})
    assert "stages.2.blocks.4.expand" in path
    assert "stages.2.blocks.5.expand" not in path
    with pytest.raises(InvalidPathError, match=r"stages\.2\.depth.*can't be 3; legal: 0, 1, 2"):
        published.canonical({"stages.2.depth": 3})


def test_published_files_may_use_the_static_networks_names(tmp_path: Path) -> None:
    space = OfaResNet50Space(resolutions=[32], num_classes=10)
    state = random_official_state(10)
    short = {
        name.replace("conv.conv.weight", "conv.weight")
        .replace("bn.bn.", "bn.")
        .replace("linear.linear.", "linear."): tensor
        for name, tensor in state.items()
    }
    assert not short.keys() & state.keys()
    torch.save({"state_dict": short}, tmp_path / "supernet.pth")
    loaded = official_state(space.build(checkpoint=str(tmp_path / "supernet.pth")))
    for name, tensor in state.items():
        assert torch.equal(loaded[name], tensor), name


def test_another_number_of_classes_keeps_the_trunk(tmp_path: Path) -> None:
    state = random_official_state(1000)
    write_state(tmp_path / "supernet.safetensors", state)
    space = OfaResNet50Space(resolutions=[32], num_classes=10)
    with pytest.warns(UntrainedClassifier, match="1000 classes, but the model's has 10"):
        model = space.build(checkpoint=str(tmp_path / "supernet.safetensors"))
    loaded = official_state(model)
    assert {name.split(".")[1] for name in new_parameters(model)} == {"classifier"}
    assert loaded["classifier.linear.linear.weight"].shape == (10, 2048)
    assert torch.equal(
        loaded["blocks.17.conv3.conv.conv.weight"], state["blocks.17.conv3.conv.conv.weight"]
    )


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    state = random_official_state(10)
    del state["blocks.3.conv2.bn.bn.bias"]
    write_state(tmp_path / "supernet.safetensors", state)
    space = OfaResNet50Space(resolutions=[32], num_classes=10)
    with pytest.raises(CheckpointError, match=r"lacks 'blocks\.3\.conv2\.bn\.bn\.bias'"):
        space.build(checkpoint=str(tmp_path / "supernet.safetensors"))


def test_images_are_resized_as_torchvision_does() -> None:
    space = OfaResNet50Space(resolutions=[40, 64], num_classes=2)
    resize = space.build().chain[0]
    images = torch.rand(2, 3, 64, 64)
    expected = vision.resize(images, [40, 40], antialias=True)
    torch.testing.assert_close(resize(images, {"image_size": 40}), expected)
    assert resize(images, {"image_size": 64}) is images


def predictor_input(path: ExecutionPath) -> list[float]:
    """One path's inputs, spelled out."""

    def one_hot(values: tuple[object, ...], value: object) -> list[float]:
        return [float(v == value) for v in values]

    sizes = (128, 144, 160, 176, 192, 224, 240, 256)
    features = one_hot(sizes, path["image_size"])
    features += [0.0, 1.0] if path["stem.depth"] == 2 else [1.0, 0.0]
    for name in ("stem.mid_width", "stem.width", *(f"stages.{s}.width" for s in range(4))):
        features += one_hot(WIDTHS, path[name])
    for stage, base in enumerate(BASE_DEPTHS):
        for i in range(base + 2):
            features += one_hot(EXPANDS, path.get(f"stages.{stage}.blocks.{i}.expand"))
    return features


def test_predictor_inputs_are_one_hot_with_absent_blocks_zero(published: OfaResNet50Space) -> None:
    matrix = published.sample_encoded(np.random.default_rng(0), 200)
    features = published.encode_for_predictor(matrix)
    assert features.shape == (200, 82) and features.dtype == np.float32
    expected = [predictor_input(path) for path in published.decode(matrix)]
    np.testing.assert_array_equal(features, expected)
    present = (matrix != ABSENT).sum(axis=1) - 4  # a stage's depth has no input of its own
    np.testing.assert_array_equal(features.sum(axis=1), present)


def test_predictor_refuses_sizes_that_it_never_saw() -> None:
    space = OfaResNet50Space(resolutions=[208, 224])
    with pytest.raises(InvalidValueError, match="images of 208 pixels; legal: 128, 144"):
        space.encode_for_predictor(space.encode([space.full]))


@pytest.mark.parametrize("sizes", [[], [16], [224.0], [True]])
def test_resolutions_must_be_whole_pixels(sizes: list[int]) -> None:
    with pytest.raises(InvalidValueError, match=r"resolutions(\[0\])? must (have|be)"):
        OfaResNet50Space(resolutions=sizes)


def test_a_classifier_needs_classes() -> None:
    with pytest.raises(InvalidValueError, match="num_classes must be at least 1, but got 0"):
        OfaResNet50Space(num_classes=0)


def published_configuration(space: OfaResNet50Space, path: ExecutionPath) -> dict[str, Any]:
    """What the authors' ``net.config`` says of a path, with its image size."""
    middle, out = (channels(name, path) for name in ("stem.mid_width", "stem.width"))
    stem = [{"name": "ConvLayer", "out_channels": middle}]
    if path["stem.depth"]:
        stem.append({"name": "ResidualBlock"})
    blocks = []
    for stage, base in enumerate(BASE_DEPTHS):
        width = channels(f"stages.{stage}.width", path)
        for i in range(base + int(path[f"stages.{stage}.depth"])):
            ratio = float(path[f"stages.{stage}.blocks.{i}.expand"])
            stride = 2 if stage > 0 and i == 0 else 1
            middle = middle_width(width, ratio)
            blocks.append({"out_channels": width, "mid_channels": middle, "stride": stride})
    stem.append({"name": "ConvLayer", "out_channels": out})
    return {"image_size": path["image_size"], "input_stem": stem, "blocks": blocks}


def test_published_configurations_are_paths(published: OfaResNet50Space) -> None:
    rng = np.random.default_rng(0)
    for path in [published.full, published.smallest, *(published.sample(rng) for _ in range(50))]:
        assert published.parse(published_configuration(published, path)) == path
        assert published.parse(dict(path)) == path


def test_a_configuration_of_another_network_says_what_does_not_fit(
    published: OfaResNet50Space,
) -> None:
    good = published_configuration(published, published.full)
    without_size = {name: value for name, value in good.items() if name != "image_size"}
    with pytest.raises(InvalidPathError, match="must name its image_size"):
        published.parse(without_size)
    wide = {**good, "input_stem": [{"out_channels": 33}, *good["input_stem"][1:]]}
    with pytest.raises(InvalidPathError, match=r"stem.mid_width must have 24, 32 .*but got 33"):
        published.parse(wide)
    with pytest.raises(InvalidPathError, match="has 4 stages, but this one 1"):
        published.parse({**good, "blocks": good["blocks"][:4]})
    with pytest.raises(InvalidPathError, match=r"stage 0 must have 2, 3, 4 blocks, .* has 1"):
        published.parse({**good, "blocks": good["blocks"][3:]})
    with pytest.raises(InvalidPathError, match="not a configuration of a Once-For-All"):
        published.parse({**good, "blocks": [{"stride": s} for s in (1, 1, 2, 1, 2, 1, 1, 1, 2, 1)]})
