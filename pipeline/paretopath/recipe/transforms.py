"""The image transforms that a recipe can name, with the names and arguments of torchvision v2."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from paretopath.recipe.section import Range, Section, Share, Shares2, Size

Interpolation = Literal["nearest", "bilinear", "bicubic"]


class Resize(Section):
    """Resizes the shorter side, or both."""

    name: Literal["resize"] = "resize"
    size: Size | None = Field(
        default=None,
        description="pixels of the shorter side, or [Y, X]; null: the space's [Y, X]",
    )
    interpolation: Interpolation = Field(default="bilinear", description="between pixels")


class CenterCrop(Section):
    """Cuts the middle out; smaller images are padded with zeros."""

    name: Literal["center_crop"] = "center_crop"
    size: Size | None = Field(
        default=None, description="pixels, one number or [Y, X]; null: the space's"
    )


class RandomCrop(Section):
    """Cuts a piece out at a random place."""

    name: Literal["random_crop"] = "random_crop"
    size: Size | None = Field(
        default=None, description="pixels, one number or [Y, X]; null: the space's"
    )
    padding: int = Field(default=0, ge=0, description="pixels of zeros put around the image first")


class RandomResizedCrop(Section):
    """Cuts a random piece out and resizes it (Szegedy et al., arXiv 1409.4842)."""

    name: Literal["random_resized_crop"] = "random_resized_crop"
    size: Size | None = Field(
        default=None, description="pixels, one number or [Y, X]; null: the space's"
    )
    scale: Range = Field(
        default=(0.08, 1.0), description="least and largest share of the image's area"
    )
    ratio: Range = Field(default=(3 / 4, 4 / 3), description="least and largest width over height")
    interpolation: Interpolation = Field(default="bilinear", description="between pixels")


class RandomHorizontalFlip(Section):
    """Mirrors left and right."""

    name: Literal["random_horizontal_flip"] = "random_horizontal_flip"
    p: Share = Field(default=0.5, description="probability")


class RandomVerticalFlip(Section):
    """Mirrors top and bottom."""

    name: Literal["random_vertical_flip"] = "random_vertical_flip"
    p: Share = Field(default=0.5, description="probability")


class RandomAffine(Section):
    """Turns, shifts and scales."""

    name: Literal["random_affine"] = "random_affine"
    degrees: float = Field(default=0.0, ge=0, le=180, description="largest angle either way")
    translate: Shares2 | None = Field(
        default=None, description="largest shift [X, Y] as a share of the image's width and height"
    )
    scale: Range | None = Field(default=None, description="least and largest scale")
    interpolation: Literal["nearest", "bilinear"] = Field(
        default="bilinear", description="between pixels"
    )


class ColorJitter(Section):
    """Changes brightness, contrast, saturation and hue."""

    name: Literal["color_jitter"] = "color_jitter"
    brightness: float = Field(default=0.0, ge=0, description="largest change, as a share")
    contrast: float = Field(default=0.0, ge=0, description="largest change, as a share")
    saturation: float = Field(default=0.0, ge=0, description="largest change, as a share")
    hue: float = Field(default=0.0, ge=0, le=0.5, description="largest turn, of a full one")


class TrivialAugmentWide(Section):
    """One random operation an image (Müller and Hutter, arXiv 2103.10158)."""

    name: Literal["trivial_augment_wide"] = "trivial_augment_wide"


class RandAugment(Section):
    """Several random operations an image (Cubuk et al., arXiv 1909.13719)."""

    name: Literal["rand_augment"] = "rand_augment"
    num_ops: int = Field(default=2, ge=1, le=10, description="operations an image")
    magnitude: int = Field(default=9, ge=0, le=30, description="their strength")


class RandomErasing(Section):
    """Blanks a random rectangle (Zhong et al., arXiv 1708.04896)."""

    name: Literal["random_erasing"] = "random_erasing"
    p: Share = Field(default=0.5, description="probability")
    scale: Range = Field(
        default=(0.02, 0.33), description="least and largest share of the image's area"
    )


def _bare_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


# `random_horizontal_flip` alone stands for `{name: random_horizontal_flip}`.
TransformSpec = Annotated[
    Resize
    | CenterCrop
    | RandomCrop
    | RandomResizedCrop
    | RandomHorizontalFlip
    | RandomVerticalFlip
    | RandomAffine
    | ColorJitter
    | TrivialAugmentWide
    | RandAugment
    | RandomErasing,
    Field(discriminator="name"),
    BeforeValidator(_bare_name),
]
