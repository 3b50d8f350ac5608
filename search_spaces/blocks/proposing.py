"""What timm and torchvision say about their models: sizes, normalisation, published weights."""

import inspect
from typing import Any

import torchvision

from paretopath.elastic.proposal import Proposal
from search_spaces.blocks.models import Original, is_of_timm, is_of_torchvision
from search_spaces.blocks.pretrained_folders import is_pretrained_folder, of_folder
from search_spaces.published import fitting_side, of_timm, options_of_model


def proposal(model: str, *, classes: int, size: int | None, pixels: int) -> Proposal:
    """What a recipe should say for a model.

    Args:
        model: a name of timm's, of torchvision's, ``module:callable``, or a folder.
        classes: that it shall tell apart.
        size: side of the images that it shall get; the published one, or less where images are
            smaller, if None.
        pixels: the shorter side of the images that there are.

    Raises:
        InvalidValueError: no such model.
    """
    original = Original(model, {})
    if is_pretrained_folder(model):
        return of_folder(model, classes, size, pixels)
    if is_of_timm(model):
        return of_timm(model, classes, size, pixels)
    if is_of_torchvision(model):
        return _of_torchvision(model, classes, size, pixels)
    side = size or fitting_side(224, pixels)
    taken = inspect.signature(original.make).parameters
    options: dict[str, Any] = {"model": model}
    if "num_classes" in taken:
        options["arguments"] = {"num_classes": classes}
    return Proposal(options | {"input_shape": [3, side, side]}, (3, side, side))


def _of_torchvision(model: str, classes: int, size: int | None, pixels: int) -> Proposal:
    weights = torchvision.models.get_model_weights(model)
    published = getattr(weights, "DEFAULT", None)
    preset = published.transforms() if published is not None else None
    height = preset.crop_size[0] if preset is not None else 224
    side = size or fitting_side(height, pixels)
    shape = (3, side, side)
    options = options_of_model(model, {"num_classes": classes}, shape, is_default=side == 224)
    if published is None or preset is None:
        return Proposal(options, shape)
    return Proposal(
        options,
        shape,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        crop=min(1.0, height / preset.resize_size[0]) if side == height else 1.0,
        interpolation=preset.interpolation.value,
        published=published.url,
        is_known=True,
    )
