"""The transforms that a recipe names, as those of torchvision v2."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from paretopath.errors import DataError
from paretopath.recipe.transforms import (
    CenterCrop,
    ColorJitter,
    RandAugment,
    RandomAffine,
    RandomCrop,
    RandomErasing,
    RandomHorizontalFlip,
    RandomResizedCrop,
    RandomVerticalFlip,
    Resize,
    TransformSpec,
    TrivialAugmentWide,
)

# torchvision v2 has no form of these for masks and boxes
IMAGES_ONLY = (TrivialAugmentWide, RandAugment)

ImageTransform = Callable[[Tensor], Tensor]


def build_transform(specs: Sequence[TransformSpec], size: tuple[int, int]) -> ImageTransform:
    """One function that does the transforms in order.

    Args:
        specs: from the recipe.
        size: the space's (Y, X), for those that name no size.

    Returns:
        Maps an image (C, Y, X), uint8 or float32 in [0, 1], to one of the same type.
    """
    steps = [_build(spec, size) for spec in specs]
    return v2.Compose(steps) if steps else _unchanged


def fit(size: tuple[int, int]) -> ImageTransform:
    """Brings any image to (Y, X): resized in proportion to cover that, and the centre cut out."""

    def resize_and_crop(image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        if (height, width) == size:
            return image
        scale = max(size[0] / height, size[1] / width)
        covering = [max(size[0], round(height * scale)), max(size[1], round(width * scale))]
        return v2.functional.center_crop(v2.functional.resize(image, covering), list(size))  # type: ignore[no-any-return]

    return resize_and_crop


def is_random(spec: TransformSpec) -> bool:
    """Whether two passes over an image may differ."""
    return not isinstance(spec, Resize | CenterCrop)


def require_joint(specs: Sequence[TransformSpec], what: str) -> None:
    """Refuses transforms that move an image's content but know no form for what goes with it.

    Args:
        specs: from the recipe.
        what: goes with the image: masks, boxes.

    Raises:
        DataError: names the first.
    """
    for spec in specs:
        if isinstance(spec, IMAGES_ONLY):
            raise DataError(f"{spec.name} can't transform {what}: leave it out of data.transforms")


def _unchanged(image: Tensor) -> Tensor:
    return image


def _build(spec: TransformSpec, size: tuple[int, int]) -> Any:
    match spec:
        case Resize():
            interpolation = InterpolationMode(spec.interpolation)
            return v2.Resize(spec.size or size, interpolation=interpolation)
        case CenterCrop():
            return v2.CenterCrop(_both(spec.size, size))
        case RandomCrop():
            return v2.RandomCrop(_both(spec.size, size), padding=spec.padding, pad_if_needed=True)
        case RandomResizedCrop():
            return v2.RandomResizedCrop(
                _both(spec.size, size),
                scale=spec.scale,
                ratio=spec.ratio,
                interpolation=InterpolationMode(spec.interpolation),
            )
        case RandomHorizontalFlip():
            return v2.RandomHorizontalFlip(spec.p)
        case RandomVerticalFlip():
            return v2.RandomVerticalFlip(spec.p)
        case RandomAffine():
            return v2.RandomAffine(
                spec.degrees,
                translate=spec.translate,
                scale=spec.scale,
                interpolation=InterpolationMode(spec.interpolation),
            )
        case ColorJitter():
            return v2.ColorJitter(spec.brightness, spec.contrast, spec.saturation, spec.hue)
        case TrivialAugmentWide():
            return v2.TrivialAugmentWide(interpolation=InterpolationMode.BILINEAR)
        case RandAugment():
            return v2.RandAugment(
                spec.num_ops, spec.magnitude, interpolation=InterpolationMode.BILINEAR
            )
        case RandomErasing():
            return v2.RandomErasing(spec.p, scale=spec.scale)


def _both(given: tuple[int, ...] | None, size: tuple[int, int]) -> tuple[int, int]:
    if given is None:
        return size
    return (given[0], given[-1])
