"""Whether a model that was traced on images of one size runs on others."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from paretopath.errors import InvalidValueError
from search_spaces.blocks.cutting import Piece
from search_spaces.resizing import resized, scaled


@torch.no_grad()
def check_scale(model: nn.Module, pieces: Sequence[Piece], images: Tensor, scale: float) -> None:
    """InvalidValueError where a model, or the chain of its pieces, can't take images at a share of
    their height and width: what traced code asked of their size was answered for another one.

    Args:
        model: in evaluation mode.
        pieces: of it, in order.
        images: (B, C, Y, X), an example of full size.
        scale: in (0, 1).
    """
    height, width = scaled((images.shape[2], images.shape[3]), scale)
    size = f"input_scales: model can't take images of {height} x {width} (scale {scale:g})"
    images = resized(images, scale)
    try:
        expected = model(images)
    except Exception as error:  # whatever a model's code does with images of another size
        raise InvalidValueError(f"{size}: {_first_line(error)}") from error
    try:
        state: Any = images
        for piece in pieces:
            state = piece.body(model)(state)
        pairs = zip(tree_leaves(state), tree_leaves(expected), strict=True)
        is_same = all(_is_close(a, b) for a, b in pairs)
    except Exception as error:
        raise InvalidValueError(f"{size} once it is cut: {_first_line(error)}") from error
    if not is_same:
        raise InvalidValueError(f"{size}: it runs another way than on images of full size")


def _is_close(a: Any, b: Any) -> bool:
    if not isinstance(a, Tensor) or a.is_meta:
        return True
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
