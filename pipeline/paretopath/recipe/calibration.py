"""The ``calibration`` section: what is measured once so that narrow paths lose less."""

from typing import Literal

from pydantic import Field

from paretopath.recipe.section import Number, Section


class Calibration(Section):
    """How narrow paths get the most out of the weights without gradient training.

    Needs training images; a recipe without data has no
    weights to calibrate. See ``docs/calibration.md``.
    """

    order: Literal["least_squares", "magnitude", "taylor"] = Field(
        default="least_squares",
        description="which channels and heads stay longest: those whose loss re-solved weights "
        "make up for worst, those of the largest weights, or those that the training loss feels "
        "most",
    )
    compensate: bool = Field(
        default=True,
        description="whether layers re-solve their weights by least squares for the inputs left",
    )
    repair: bool = Field(
        default=True,
        description="whether each path is re-solved unit by unit, so that it lands where the full "
        "path does in spite of what narrower and skipped units before got wrong; it is scored, and "
        "deployed, so",
    )
    images: int = Field(
        default=256, ge=2, description="training images that are looked at, drawn at random"
    )
    repair_mb: Number = Field(
        default=4096.0,
        gt=0,
        description="MiB that a walk of these images down the full path may take: where they take "
        "more, paths are re-solved on as many as fit, on 8 at least",
    )
    positions: int = Field(
        default=1024, ge=1, description="tokens or pixels sampled of each image and layer"
    )
    ridge: Number = Field(
        default=1e-4, gt=0, description="of the normal equations, a share of the mean variance"
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="of the images and positions")
    batch_norm_images: int | None = Field(
        default=None,
        ge=0,
        description="training images on which each path's batch-norm statistics are measured "
        "before its accuracy is; 0: never; null: 256 where the family needs it (ofa_resnet50), and "
        "after shared retraining",
    )
