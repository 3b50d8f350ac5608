"""Calibration of whole models."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import search_spaces
from pipeline.calibration import calibrate, collect_moments
from pipeline.elastic import ElasticModel, ElasticSpace
from pipeline.errors import InvalidValueError
from pipeline.weights import load_into, write_state

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


def batches(space: ElasticSpace, seed: int = 0) -> list[tuple[Tensor, None]]:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(4, *space.input_shape, generator=generator), None) for _ in range(3)]


def built(space: ElasticSpace) -> ElasticModel:
    torch.manual_seed(0)
    return space.build()


@pytest.mark.parametrize("family", [segformer, vit])
@torch.inference_mode()
def test_calibration_leaves_the_full_path_as_it_is(family: object) -> None:
    space = family()  # type: ignore[operator]
    model, images = built(space), batches(space, seed=1)[0][0]
    before = model(images)
    calibrate(model, batches(space))
    torch.testing.assert_close(model(images), before, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", [segformer, vit])
@torch.inference_mode()
def test_narrow_paths_come_closer_to_the_full_one(family: object) -> None:
    space = family()  # type: ignore[operator]
    images = batches(space, seed=1)[0][0]
    narrow = space.canonical(
        {
            d.name: d.values[len(d.values) // 2]
            for d in space.decisions
            if d.name.endswith(("mlp_ratio", "keep", "heads"))
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


@pytest.mark.parametrize("family", [segformer, vit])
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
