"""The space segformer, over a SegFormer small enough for tests."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import SegformerForImageClassification, SegformerForSemanticSegmentation

import search_spaces
from paretopath.elastic import ElasticModel, ElasticSpace
from paretopath.errors import CheckpointError, InvalidValueError, UntrainedClassifier
from paretopath.evaluation.batch_norm import recalibrate
from paretopath.tracing import total_macs, trace_layers
from paretopath.weights.new import new_parameters
from search_spaces.pretrained import PretrainedSpace
from tests.search_spaces.space_contract import SpaceContract

SMALL = {
    "depths": (1, 2, 1, 2),
    "hidden_sizes": (8, 16, 24, 32),
    "num_attention_heads": (1, 2, 3, 4),
    "decoder_hidden_size": 32,
}


def small_space(**options: object) -> ElasticSpace:
    return search_spaces.create(
        "segformer", variant=None, arguments=SMALL, image_size=(64, 96), num_classes=5, **options
    )


def original(model: ElasticModel) -> Callable[[torch.Tensor], torch.Tensor]:
    assert isinstance(model.space, PretrainedSpace)
    reference = model.space.reference()
    reference.load_state_dict(model.space.original_state(model))
    return lambda images: reference(images).logits


class TestSegformer(SpaceContract):
    # merged, a branch's matrices are multiplied out to (width, C), which may hold more or fewer
    # than both
    params_may_fall = frozenset({"decoder.form"})

    @pytest.fixture(scope="class")
    def space(self) -> ElasticSpace:
        return small_space()

    def reference(self, model: ElasticModel) -> Callable[[torch.Tensor], torch.Tensor]:
        return original(model)


def test_b2_at_512_has_the_published_macs() -> None:
    space = search_spaces.create("segformer", variant="b2", image_size=512, num_classes=150)
    layers = trace_layers(space, space.full)
    macs = total_macs(layers)
    convolution = sum(layer.macs for layer in layers if layer.kind == "convolution")
    fuse = max(layers, key=lambda layer: layer.macs)
    assert macs == pytest.approx(62.34e9, rel=0.005)
    assert convolution / macs == pytest.approx(0.69, abs=0.005)
    assert (fuse.c, fuse.k) == (3072, 768)
    assert fuse.macs / macs == pytest.approx(0.62, abs=0.005)
    merged = trace_layers(space, space.canonical({"decoder.form": "merged"}))
    assert total_macs(merged) == pytest.approx(23.7e9, rel=0.005)


@pytest.mark.parametrize("form", ["merged", "gathered"])
@torch.inference_mode()
def test_rewriting_the_decoder_changes_nothing_but_rounding(form: str) -> None:
    torch.manual_seed(0)
    space = small_space()
    model = space.build()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
            module.bias.normal_()
    images = torch.randn(2, *space.input_shape)
    expected = model(images)
    for width in (1.0, 0.5):
        published = space.canonical({"decoder.width": width})
        rewritten = space.canonical({"decoder.form": form, "decoder.width": width})
        with model.active(published):
            expected = model(images)
        with model.active(rewritten):
            got = model(images)
        assert (got - expected).abs().max() / expected.abs().max() < 2e-6


@pytest.mark.parametrize("form", ["merged", "gathered"])
def test_a_rewritten_decoder_trains_the_published_weights(form: str) -> None:
    torch.manual_seed(0)
    space = small_space()
    model = space.build()
    images = torch.randn(2, *space.input_shape)
    merged = space.canonical({"decoder.form": form})
    with model.active(merged):
        model.train()(images).square().mean().backward()
    head = model.chain[-1].head
    assert head.linear_fuse.weight.grad.abs().max() > 0
    assert all(branch.proj.weight.grad.abs().max() > 0 for branch in head.linear_projections)
    # an optimiser's step shows in what the merged form gives next
    model.eval()
    with torch.no_grad(), model.active(merged):
        before = model(images)
        head.linear_fuse.weight.mul_(2.0)
        assert not torch.allclose(model(images), before)


@pytest.mark.parametrize("form", ["merged", "gathered"])
def test_a_rewritten_decoder_has_the_batch_norm_statistics_of_its_path(form: str) -> None:
    torch.manual_seed(0)
    space = small_space()
    model = space.build().eval()
    draws = [[(torch.randn(8, *space.input_shape) * size, None)] for size in (1.0, 3.0)]
    outputs = {}
    # one after the other, so that the statistics of the first are gone when the second's come
    for decoder in ("as_published", form):
        path = {"decoder.form": decoder, "decoder.width": 0.5, "stages.1.blocks.0.run": False}
        for i, batches in enumerate(draws):
            own = recalibrate(model, path, batches)
            with model.active(path, own), torch.no_grad():
                outputs[decoder, i] = model(draws[0][0][0])
            static = model.extract(path, own)
            torch.testing.assert_close(static(draws[0][0][0]), outputs[decoder, i])
    for i in range(len(draws)):
        torch.testing.assert_close(outputs[form, i], outputs["as_published", i])
    assert not torch.allclose(outputs[form, 0], outputs[form, 1])


def test_full_path_extracts_to_a_model_that_saves(tmp_path: Path) -> None:
    torch.manual_seed(0)
    space = small_space()
    model = space.build()
    static = model.extract(space.full)
    assert type(static) is SegformerForSemanticSegmentation
    static.save_pretrained(tmp_path)
    again = SegformerForSemanticSegmentation.from_pretrained(tmp_path).eval()
    images = torch.randn(1, *space.input_shape)
    with torch.inference_mode():
        torch.testing.assert_close(again(images).logits, model(images))
    reloaded = space.build(checkpoint=str(tmp_path))
    with torch.inference_mode():
        torch.testing.assert_close(reloaded(images), model(images))


def test_a_narrow_model_gives_the_same_in_a_fresh_process(tmp_path: Path) -> None:
    torch.manual_seed(0)
    space = small_space()
    model, images = space.build(), torch.randn(2, *space.input_shape)
    paths = {
        form: dict(space.canonical({**space.smallest, "decoder.form": form}))
        for form in ("merged", "as_published")
    }
    for form, path in paths.items():
        static = model.extract(path, recalibrate(model, path, [(images, None)]))
        save_file(static.state_dict(), tmp_path / f"{form}.safetensors")
        with torch.inference_mode():
            seen = {"images": images, "logits": static(images).contiguous()}
        save_file(seen, tmp_path / f"seen_{form}.safetensors")
    code = f"""
import search_spaces, torch
from safetensors.torch import load_file
options = dict(variant=None, arguments={SMALL!r}, image_size=(64, 96), num_classes=5)
model = search_spaces.create("segformer", **options).build()
for form, path in {paths!r}.items():
    static = model.extract(path)
    static.load_state_dict(load_file(f"{{form}}.safetensors"))
    seen = load_file(f"seen_{{form}}.safetensors")
    with torch.inference_mode():
        torch.testing.assert_close(static(seen["images"]), seen["logits"])
    print(form)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == [*paths], done.stderr


def test_checkpoint_of_another_number_of_classes_keeps_all_but_the_classifier(
    tmp_path: Path,
) -> None:
    small_space().build().extract(small_space().full).save_pretrained(tmp_path)
    other = search_spaces.create(
        "segformer", variant=None, arguments=SMALL, image_size=(64, 96), num_classes=3
    )
    images = torch.randn(1, *other.input_shape)
    with pytest.warns(UntrainedClassifier, match="5 classes, but the model's has 3"):
        model = other.build(checkpoint=str(tmp_path))
    assert model(images).shape == (1, 3, 16, 24)
    head = "units.decoder.head.classifier"
    assert list(new_parameters(model)) == [f"{head}.weight", f"{head}.bias"]


def test_an_encoder_that_was_trained_on_whole_images_leaves_the_decoder_new(
    tmp_path: Path,
) -> None:
    space = small_space()
    SegformerForImageClassification(space.config).save_pretrained(tmp_path)
    with pytest.warns(UntrainedClassifier, match="no classifier, but the model's has 5"):
        model = space.build(checkpoint=str(tmp_path))
    decoder = next(unit for unit in model.chain if unit.name == "decoder")
    assert set(new_parameters(decoder)) == {name for name, _ in decoder.named_parameters()}
    assert len(new_parameters(model)) == len(new_parameters(decoder))


def test_checkpoint_of_another_width_is_refused(tmp_path: Path) -> None:
    small_space().build().extract(small_space().full).save_pretrained(tmp_path)
    wider = search_spaces.create(
        "segformer",
        variant=None,
        arguments={**SMALL, "hidden_sizes": (8, 16, 24, 64)},
        image_size=(64, 96),
        num_classes=5,
    )
    with pytest.raises(CheckpointError, match=r"must have shape \(.*\), but got"):
        wider.build(checkpoint=str(tmp_path))


def test_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="can't be loaded"):
        small_space().build(checkpoint=str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mlp_ratios": (0.5,)}, "must include 1.0"),
        ({"keep_ratios": (0.0, 1.0)}, r"keep_ratios\[0\] must be over 0, but got 0\.0"),
        ({"skippable": ["stages.9.blocks.0"]}, "there is no block 'stages.9.blocks.0'"),
        ({"forms": ["merged"]}, "must include as_published"),
        ({"forms": ["mergd", "as_published"]}, "did you mean 'merged'"),
    ],
)
def test_options_outside_their_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        small_space(**options)


def test_unknown_variant_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="there is no SegFormer 'b7'"):
        search_spaces.create("segformer", variant="b7")
