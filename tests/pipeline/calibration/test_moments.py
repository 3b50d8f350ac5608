"""Calibration of whole models."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import search_spaces
from paretopath.calibration.moments import calibrate, collect_moments, draw
from paretopath.elastic import (
    ChannelGroup,
    Choice,
    ElasticConv2d,
    ElasticModel,
    ElasticSpace,
    Reader,
    Unit,
)
from paretopath.errors import InvalidValueError
from paretopath.paths import Decision
from paretopath.weights.files import load_into, write_state

SMALL = {
    "depths": (1, 1, 1, 1),
    "hidden_sizes": (8, 16, 24, 32),
    "num_attention_heads": (2, 2, 2, 2),
    "decoder_hidden_size": 32,
}


def segformer() -> ElasticSpace:
    return search_spaces.create(
        "segformer", variant=None, arguments=SMALL, image_size=64, num_classes=5
    )


def vit() -> ElasticSpace:
    arguments = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 3, "num_heads": 4}
    return search_spaces.create("vit", arguments={**arguments, "num_classes": 6})


def upernet() -> ElasticSpace:
    backbone = {"embed_dim": 12, "depths": (1, 1), "num_heads": (1, 2), "window_size": 4}
    return search_spaces.create(
        "upernet_swin",
        variant=None,
        backbone=backbone,
        arguments={"hidden_size": 16, "pool_scales": (1, 2)},
        image_size=32,
        num_classes=5,
    )


def batches(space: ElasticSpace, seed: int = 0) -> list[tuple[Tensor, None]]:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(4, *space.input_shape, generator=generator), None) for _ in range(3)]


def built(space: ElasticSpace) -> ElasticModel:
    torch.manual_seed(0)
    return space.build()


@pytest.mark.parametrize("family", [segformer, vit, upernet])
@torch.inference_mode()
def test_calibration_leaves_the_full_path_as_it_is(family: object) -> None:
    space = family()  # type: ignore[operator]
    model, images = built(space), batches(space, seed=1)[0][0]
    before = model(images)
    calibrate(model, batches(space))
    torch.testing.assert_close(model(images), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", [segformer, vit, upernet])
@torch.inference_mode()
def test_narrow_paths_come_closer_to_the_full_one(family: object) -> None:
    space = family()  # type: ignore[operator]
    images = batches(space, seed=1)[0][0]
    narrow = space.canonical(
        {
            d.name: d.values[len(d.values) // 2]
            for d in space.decisions
            if d.name.endswith(("mlp_ratio", "keep", "heads", "width"))
        }
    )
    errors = {}
    for calibrated in (False, True):
        model = built(space)
        if calibrated:
            calibrate(model, batches(space))
        full = model(images)
        with model.active(narrow):
            errors[calibrated] = float((model(images) - full).square().mean() / full.var())
    assert errors[True] < 0.5 * errors[False]


@pytest.mark.parametrize("family", [segformer, vit, upernet])
@torch.inference_mode()
def test_extracted_models_carry_the_solutions(family: object) -> None:
    space = family()  # type: ignore[operator]
    model, images = built(space), batches(space, seed=1)[0][0]
    calibrate(model, batches(space))
    with model.active(space.smallest):
        expected = model(images)
    static = model.extract(space.smallest)
    torch.testing.assert_close(static(images), expected, rtol=1e-5, atol=1e-5)
    assert not [name for name, _ in static.named_buffers() if "covariance" in name]


@pytest.mark.parametrize("family", [segformer, vit, upernet])
def test_calibration_changes_no_price(family: object) -> None:
    space = family()  # type: ignore[operator]
    model = built(space)
    path = space.canonical(
        {d.name: d.values[0] for d in space.decisions if not d.name.endswith(("run", "form"))}
    )
    shapes = [p.shape for p in model.extract(path).parameters()]
    calibrate(model, batches(space))
    assert [p.shape for p in model.extract(path).parameters()] == shapes


@torch.inference_mode()
def test_weights_file_holds_the_calibration(tmp_path: Path) -> None:
    space = segformer()
    model, images = built(space), batches(space, seed=1)[0][0]
    calibrate(model, batches(space))
    write_state(tmp_path / "weights.safetensors", model.state_dict())
    again = space.build()
    load_into(again, tmp_path / "weights.safetensors")
    path = space.canonical({f"decoder.branches.{i}.keep": 0.25 for i in range(4)})
    with model.active(path), again.active(path):
        torch.testing.assert_close(again(images), model(images))


def test_moments_are_those_of_the_inputs() -> None:
    space = segformer()
    model = built(space)
    seen: list[Tensor] = []
    classifier = model.chain[-1].head.classifier
    handle = classifier.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    moments = collect_moments(model, batches(space))[classifier]
    handle.remove()
    rows = torch.cat(seen).permute(0, 2, 3, 1).flatten(0, 2).double()
    assert moments.samples == len(rows)
    torch.testing.assert_close(moments.mean, rows.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        moments.covariance, torch.cov(rows.T, correction=0), rtol=1e-4, atol=1e-6
    )


def test_positions_are_sampled_alike_for_one_seed() -> None:
    space = segformer()
    model = built(space)
    first, second = (collect_moments(model, batches(space), positions=16) for _ in range(2))
    for layer, moments in first.items():
        assert moments.samples <= 12 * 16
        torch.testing.assert_close(moments.covariance, second[layer].covariance, rtol=0, atol=0)


def test_calibration_without_images_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="at least one batch"):
        calibrate(built(segformer()), [])


@torch.inference_mode()
def test_a_model_that_names_no_readers_stays_as_it_is() -> None:
    space = search_spaces.create("ofa_resnet50", resolutions=[64], num_classes=5)
    model = built(space)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert calibrate(model, iter(())) == []  # no image is run either
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_draw_gives_as_many_images_as_asked_for() -> None:
    images, targets = torch.arange(10.0), torch.arange(10)
    loader = list(zip(images.split(4), targets.split(4), strict=True))
    drawn = list(draw(loader, 6))
    assert torch.cat([x for x, _ in drawn]).tolist() == [0, 1, 2, 3, 4, 5]
    assert [len(y) for _, y in drawn] == [4, 2]
    assert sum(len(x) for x, _ in draw(loader, 99)) == 10
    assert len(list(draw(loader, 4))) == 1


def test_layers_stay_as_they_are_where_only_the_order_is_wanted() -> None:
    space = segformer()
    model = built(space)
    watched = calibrate(model, batches(space), solve=False)
    assert "units.decoder.head.linear_fuse" in watched
    assert not [name for name in model.state_dict() if "compensation" in name]


class Shifted(Unit):
    """A convolution that reads one input, the same a pixel further, and another input."""

    is_exit = True

    def __init__(self) -> None:
        super().__init__("shifted", decisions=("width",))
        self.maker = ElasticConv2d(2, 3, (3, 3), padding=1, bias=False)
        self.reader = ElasticConv2d(3, 1, (3, 3), padding=1, bias=False)
        for weight in (self.maker.weight, self.reader.weight):
            nn.init.zeros_(weight)
        with torch.no_grad():
            self.maker.weight[0, 0, 1, 1] = self.maker.weight[1, 0, 1, 2] = 1.0
            self.maker.weight[2, 1, 1, 1] = 1.0
            self.reader.weight[0, :, 1, 1] = torch.tensor([1.0, 1.0, 0.8])

    def forward(self, state: Tensor, choice: Choice) -> Tensor:
        return self.reader(self.maker(state, int(choice["width"])))

    def extract(self, choice: Choice) -> nn.Module:
        width = int(choice["width"])
        return nn.Sequential(self.maker.narrow(2, width), self.reader.narrow(width, 1))

    def channel_groups(self) -> list[ChannelGroup]:
        return [ChannelGroup(3, ("maker",), (Reader("reader"),))]


class ShiftedSpace(ElasticSpace):
    def __init__(self) -> None:
        super().__init__([Decision("width", (1, 2, 3))], input_shape=(2, 16, 16))

    def units(self, checkpoint: str | None = None) -> list[Unit]:
        return [Shifted()]


def test_a_channel_that_other_taps_make_up_for_goes_first() -> None:
    space = ShiftedSpace()
    model = space.build()
    calibrate(model, batches(space))
    inputs_read = model.chain[0].get_parameter("maker.weight").abs().sum((2, 3)).argmax(1)
    assert sorted(inputs_read[:2].tolist()) == [0, 1]  # pixel by pixel the lightest were the other
