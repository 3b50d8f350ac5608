"""What a family knows about a model by its name, for a recipe that is yet to be written."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Proposal:
    """What a recipe should say for a model.

    Attributes:
        options: of the space.
        input_shape: (C, Y, X) of the images that the model shall get.
        mean, std: of the training of its published weights, after scaling to [0, 1].
        crop: the share of a resized image's side that its published accuracy was measured on, in
            (0, 1].
        interpolation: of that resizing: nearest, bilinear or bicubic.
        published: hub id or URL of its published weights; None where nobody says.
        weights: a file of weights that is here already, and belongs to the model.
        is_known: whether mean and std are the model's own, not a guess.
    """

    options: Mapping[str, Any]
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    crop: float = 1.0
    interpolation: str = "bilinear"
    published: str | None = None
    weights: str | None = None
    is_known: bool = False
