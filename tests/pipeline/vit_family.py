"""Two vision transformers small enough for tests, each with exits of its own, in one family."""

from typing import Any

from search_spaces.family import FamilySpace

EXITS = {"small": [1, 2], "large": [1, 2, 4]}


def member(embed_dim: int, depth: int, exits: list[int]) -> dict[str, Any]:
    """The entry of one model, over digits (1, 8, 8)."""
    arguments = {
        "img_size": 8,
        "patch_size": 4,
        "in_chans": 1,
        "num_classes": 10,
        "embed_dim": embed_dim,
        "depth": depth,
        "num_heads": 2,
    }
    options = {"arguments": arguments, "exits": exits, "mlp_ratios": [0.5, 1.0]}
    return {"space": "vit", "options": options}


MEMBERS = {
    "small": member(8, 2, EXITS["small"]),
    "large": member(16, 4, EXITS["large"]),
}


def vit_family() -> FamilySpace:
    """The space; ``large`` is the dearer one."""
    return FamilySpace(members=MEMBERS)
