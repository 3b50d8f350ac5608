"""Channels that are kept are a multiple of what hardware likes, in every family."""

from typing import Any

import pytest
from torch import nn

import search_spaces
from search_spaces.widths import channels

SPACES: dict[str, dict[str, Any]] = {
    "vit": {
        "arguments": {"img_size": 16, "embed_dim": 12, "depth": 1, "num_heads": 2},
        "mlp_ratios": [0.3, 1.0],
    },
    "segformer": {
        "variant": None,
        "arguments": {
            "hidden_sizes": [12, 12, 12, 12],
            "num_attention_heads": [2, 2, 2, 2],
            "depths": [1, 1, 1, 1],
        },
        "image_size": 32,
        "num_classes": 3,
        "mlp_ratios": [0.3, 1.0],
    },
}


@pytest.mark.parametrize(
    ("full", "ratio", "divisor", "kept"),
    [(3072, 0.2, 1, 614), (3072, 0.2, 8, 616), (3072, 0.2, 64, 640), (64, 0.01, 8, 8)],
)
def test_shares_keep_a_multiple_of_the_divisor(
    full: int, ratio: float, divisor: int, kept: int
) -> None:
    assert channels(full, ratio, divisor) == kept


def test_where_there_are_fewer_than_four_multiples_channels_are_taken_as_they_come() -> None:
    assert [channels(24, share / 8, 8) for share in range(1, 5)] == [3, 6, 9, 12]


@pytest.mark.parametrize("name", SPACES)
def test_families_keep_a_multiple_of_eight_channels(name: str) -> None:
    space = search_spaces.create(name, **SPACES[name])
    changed = dict(space.full)
    changed.update({d.name: d.values[0] for d in space.decisions if d.name.endswith("_ratio")})
    static = space.build().extract(space.canonical(changed))
    full = space.build().extract(space.full)
    pairs = zip(outputs_of(static), outputs_of(full), strict=True)
    narrowed = [narrow for narrow, whole in pairs if narrow != whole]
    assert narrowed
    assert all(width % 8 == 0 for width in narrowed)


def outputs_of(model: nn.Module) -> list[int]:
    return [len(m.weight) for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
