"""Attention's heads in the space blocks."""

import pytest
import torch

from tests.search_spaces.blocks_models import ATTENTION, holds_the_invariants, make_space


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
