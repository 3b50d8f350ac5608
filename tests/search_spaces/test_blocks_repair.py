"""Blocks of any model are repaired onto the streams that their layers write into."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import search_spaces
from paretopath.elastic import ElasticModel, ElasticSpace, Unit
from paretopath.elastic.repair import Repair
from paretopath.elastic.repair.rows import Call
from paretopath.elastic.stream import watching
from search_spaces.blocks.unit import BlockUnit
from tests.search_spaces.blocks_models import ATTENTION, SMALL

VIT: dict[str, Any] = {
    **{"img_size": 16, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 4},
    **{"num_classes": 5, "init_values": 0.5, "drop_path_rate": 0.1},
}
SWIN: dict[str, Any] = {
    "model": "swin_tiny_patch4_window7_224",
    "arguments": {"img_size": 64, "depths": [2, 1], "embed_dim": 24, "num_heads": [2, 4]},
    "input_shape": [3, 64, 64],
}

# Options, a block, the layers that write into a stream there, and where the block's channels are.
STREAMS: dict[str, tuple[dict[str, Any], str, set[str], int]] = {
    "a layer scale": (
        {"model": "vit_tiny_patch16_224", "arguments": VIT},
        "blocks.1",
        {"attn.proj", "mlp.fc2"},
        -1,
    ),
    "windows, shifted and padded": (SWIN, "layers.0.blocks.1", {"attn.proj", "mlp.fc2"}, -1),
    "channels last inside, and a scale of the block's own": (
        {
            "model": "convnext_atto",
            "arguments": {"depths": [1, 1, 2, 1], "dims": [8, 16, 32, 64]},
            "input_shape": [3, 64, 64],
        },
        "stages.0.blocks.0",
        {"mlp.fc2"},
        1,
    ),
    "PyTorch's attention": (
        ATTENTION["PyTorch's"],
        "encoder.layers.encoder_layer_0",
        {"self_attention.out", "mlp.3"},
        -1,
    ),
    "a shortcut that computes, and runs later": (
        SMALL["resnet"],
        "layer2.0",
        {"conv3"},
        1,
    ),
}


def build(options: dict[str, Any]) -> ElasticModel:
    """An elastic model with no weight at zero."""
    torch.manual_seed(0)
    model = search_spaces.create("blocks", **options).build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@torch.no_grad()
def reached(model: ElasticModel, name: str, images: Tensor) -> tuple[BlockUnit, Tensor]:
    """A unit, and the state that reaches it on the full path."""
    state: Any = images
    for step in model.steps(model.space.full):
        if step.unit.name == name:
            assert isinstance(step.unit, BlockUnit)
            return step.unit, state
        state = step(state)
    raise ValueError(f"no unit {name}")


@torch.no_grad()
def without_its_stream(unit: Unit, layer: nn.Module, state: Tensor) -> Tensor:
    """What a unit gives where a layer takes away what its result is said to be added to."""

    def after(layer: Any, args: Any, kwargs: Any, result: Tensor) -> Tensor:
        call = Call.of(layer, args, kwargs)
        skip = call.skip(torch.arange(call.positions))
        assert skip is not None
        places = result.movedim(1, -1) if isinstance(layer, nn.Conv2d) else result
        opposite = (-skip / call.scale()).view(places.shape)
        return opposite.movedim(-1, 1) if isinstance(layer, nn.Conv2d) else opposite

    with watching(solves=False), ExitStack() as stack:
        stack.callback(layer.register_forward_hook(after, with_kwargs=True).remove)
        found: Tensor = unit(state, {})
    return found


@pytest.mark.parametrize("kind", STREAMS)
def test_a_layer_is_said_to_write_into_what_its_result_is_added_to(kind: str) -> None:
    options, name, layers, channels = STREAMS[kind]
    model = build(options)
    unit, state = reached(model, name, torch.randn(2, *model.space.input_shape))
    assert {w.layer.removeprefix(f"{name}.") for w in unit.writers} == layers
    for writer in unit.writers:
        left = without_its_stream(unit, unit.body.get_submodule(writer.layer), state)
        rows = left.movedim(channels, -1).flatten(0, -2)  # what is left says nothing of any place
        torch.testing.assert_close(rows, rows[:1].expand_as(rows), rtol=1e-3, atol=1e-4)


def test_a_transformer_is_repaired_as_by_its_own_family(tmp_path: Path) -> None:
    torch.manual_seed(0)
    known = timm.create_model("vit_tiny_patch16_224", **VIT)
    torch.save(known.state_dict(), tmp_path / "known.pth")
    own_family = search_spaces.create(
        "vit", model="vit_tiny_patch16_224", arguments=VIT, exits=[4], heads=[2, 4]
    )
    any_model = search_spaces.create("blocks", model="vit_tiny_patch16_224", arguments=VIT)
    images = torch.randn(16, 3, 16, 16)
    narrow = {"blocks.1.heads": 2, "blocks.2.mlp_ratio": 0.5}
    alike = {"blocks.1.head_ratio": 0.5, "blocks.2.keep_ratio": 0.5}
    found, expected = (
        solved(space, tmp_path / "known.pth", {"blocks.0.run": False, **choices}, images)
        for space, choices in ((any_model, alike), (own_family, narrow))
    )
    assert len(expected) == 2 * (2 * 3 + 1)  # two layers of three blocks, and the classifier
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def solved(
    space: ElasticSpace, weights: Path, choices: dict[str, Any], images: Tensor
) -> list[Tensor]:
    """What a path's layers have for themselves, in the order in which they run."""
    path = space.canonical({**space.full, **choices})
    own = Repair(space.build(str(weights)), images)([path])[path]
    return [tensor for tensor in own.tensors.values() if tensor is not None]


def test_where_a_norm_lies_before_a_sum_no_layer_writes_into_the_stream() -> None:
    model = build({**SWIN, "model": "swinv2_tiny_window8_256"})
    blocks = [unit for unit in model.chain if isinstance(unit, BlockUnit) and unit.groups]
    assert len(blocks) == 3
    assert not any(unit.writers for unit in blocks)


def test_windows_that_are_others_at_another_size_are_repaired_too() -> None:
    arguments = {**SWIN["arguments"], "img_size": 32, "strict_img_size": False}
    options = {**SWIN, "arguments": arguments, "input_shape": [3, 32, 32]}
    model = build({**options, "input_scales": [0.5, 1.0]})
    path = model.space.canonical({"input_scale": 0.5, "layers.0.blocks.0.run": False})
    (own,) = Repair(model, torch.randn(4, 3, 32, 32))([path]).values()
    assert all(bool(tensor.isfinite().all()) for tensor in own.tensors.values())
