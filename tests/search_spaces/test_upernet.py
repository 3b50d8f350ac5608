"""The space upernet_swin, over a model small enough for tests."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import UperNetForSemanticSegmentation

import search_spaces
from paretopath.elastic import ElasticModel, ElasticSpace
from paretopath.elastic.repair import Repair
from paretopath.errors import CheckpointError, InvalidValueError, UntrainedClassifier
from paretopath.tracing import total_macs, trace_layers
from paretopath.weights.new import new_parameters
from search_spaces.pretrained import PretrainedSpace
from tests.search_spaces.space_contract import SpaceContract

ARGUMENTS = {"hidden_size": 16}
BACKBONE = {"embed_dim": 8, "depths": (2, 1, 2, 1), "num_heads": (1, 2, 4, 4), "window_size": 4}


def small_space(**options: object) -> ElasticSpace:
    given = {"arguments": ARGUMENTS, "backbone": BACKBONE, "image_size": (40, 72), **options}
    return search_spaces.create("upernet_swin", variant=None, num_classes=5, **given)


class TestUpernetSwin(SpaceContract):
    @pytest.fixture(scope="class")
    def space(self) -> ElasticSpace:
        return small_space()

    def reference(self, model: ElasticModel) -> Callable[[torch.Tensor], torch.Tensor]:
        assert isinstance(model.space, PretrainedSpace)
        original = model.space.reference()
        original.load_state_dict(model.space.original_state(model))
        return lambda images: original(images).logits


def test_swin_t_at_512_has_the_published_macs() -> None:
    space = search_spaces.create("upernet_swin", variant="t", image_size=512, num_classes=150)
    layers = trace_layers(space, space.full)
    macs = total_macs(layers)
    convolution = sum(layer.macs for layer in layers if layer.kind == "convolution")
    bottleneck = max(layers, key=lambda layer: layer.macs)
    assert macs == pytest.approx(236.86e9, rel=0.005)
    assert convolution / macs == pytest.approx(0.89, abs=0.005)
    assert (bottleneck.c, bottleneck.k, bottleneck.fy) == (2048, 512, 3)
    assert bottleneck.macs == pytest.approx(154.6e9, rel=0.001)


def test_late_upsampling_takes_four_ninths_of_the_macs_away() -> None:
    space = search_spaces.create("upernet_swin", variant="t", image_size=512, num_classes=150)
    late = trace_layers(space, space.canonical({"decoder.form": "upsampled_late"}))
    # the bottleneck's four levels have 1, 1/4, 1/16 and 1/64 of the first one's pixels
    published = total_macs(trace_layers(space, space.full))
    saved = 154.6e9 / 4 * (3 - 1 / 4 - 1 / 16 - 1 / 64)
    assert published - total_macs(late) == pytest.approx(saved, rel=0.001)


@pytest.mark.parametrize("size", [(40, 72), (32, 32), (36, 44)])
@pytest.mark.parametrize("narrow", [False, True])
@torch.inference_mode()
def test_late_upsampling_is_the_same_function(size: tuple[int, int], narrow: bool) -> None:
    torch.manual_seed(0)
    space = small_space(image_size=size)
    model = space.build()
    images = torch.randn(2, *space.input_shape)
    widths = {d.name: 0.5 for d in space.decisions if narrow and d.name.endswith("width")}
    outputs = []
    for form in ("as_published", "upsampled_late"):
        with model.active({**widths, "decoder.form": form}):
            outputs.append(model(images))
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-4, atol=1e-6)


def test_late_upsampling_is_repaired_as_the_convolution_that_it_rewrites() -> None:
    torch.manual_seed(0)
    space = small_space()
    model, images = space.build().eval(), torch.randn(4, *space.input_shape)
    forms = {
        form: space.canonical({**space.smallest, "decoder.form": form})
        for form in ("as_published", "upsampled_late")
    }
    own = Repair(model, images)(list(forms.values()))
    published, late = (own[path] for path in forms.values())
    assert any("fpn_bottleneck" in name for name in late.tensors)
    with torch.inference_mode():
        found = [model.extract(path, own[path])(images) for path in forms.values()]
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-3)
    assert published.tensors.keys() == late.tensors.keys()


def test_checkpoint_of_another_number_of_classes_leaves_the_classifier_new(tmp_path: Path) -> None:
    small_space().build().extract(small_space().full).save_pretrained(tmp_path)
    other = search_spaces.create(
        "upernet_swin",
        variant=None,
        arguments=ARGUMENTS,
        backbone=BACKBONE,
        image_size=(40, 72),
        num_classes=3,
    )
    with pytest.warns(UntrainedClassifier, match="5 classes, but the model's has 3"):
        model = other.build(checkpoint=str(tmp_path))
    head = "units.decoder.head.classifier"
    assert list(new_parameters(model)) == [f"{head}.weight", f"{head}.bias"]


def test_full_path_extracts_to_a_model_that_saves(tmp_path: Path) -> None:
    torch.manual_seed(0)
    space = small_space()
    model = space.build()
    static = model.extract(space.full)
    assert type(static) is UperNetForSemanticSegmentation
    static.save_pretrained(tmp_path)
    again = UperNetForSemanticSegmentation.from_pretrained(tmp_path).eval()
    images = torch.randn(1, *space.input_shape)
    reloaded = space.build(checkpoint=str(tmp_path))
    with torch.inference_mode():
        torch.testing.assert_close(again(images).logits, model(images))
        torch.testing.assert_close(reloaded(images), model(images))


def test_a_checkpoints_auxiliary_head_stays_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    space = small_space()
    config = copy.deepcopy(space.config)
    config.use_auxiliary_head, config.auxiliary_in_channels = True, 32
    original = UperNetForSemanticSegmentation(config).eval()
    original.save_pretrained(tmp_path)
    images = torch.randn(1, *space.input_shape)
    for checkpoint in (tmp_path, tmp_path / "model.safetensors"):
        model = space.build(checkpoint=str(checkpoint))
        with torch.inference_mode():
            torch.testing.assert_close(model(images), original(images).logits)
        static = model.extract(space.full)
        assert not [name for name, _ in static.named_parameters() if "auxiliary" in name]


def test_checkpoint_of_another_width_is_refused(tmp_path: Path) -> None:
    small_space().build().extract(small_space().full).save_pretrained(tmp_path)
    wider = small_space(arguments={**ARGUMENTS, "hidden_size": 24})
    with pytest.raises(CheckpointError, match=r"must have shape \(.*\), but got"):
        wider.build(checkpoint=str(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width_ratios": (0.5,)}, "must include 1.0"),
        ({"image_size": 41}, "multiple of the patch size"),
        ({"skippable": "some"}, "skippable must be a list"),
    ],
)
def test_options_outside_their_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        small_space(**options)


def test_unknown_variant_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="there is no Swin 'x'"):
        search_spaces.create("upernet_swin", variant="x")
