"""The tasks that a recipe can name, with their options; their code is in ``pipeline/tasks``."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from paretopath.recipe.section import Section, Size


class ClassificationTask(Section):
    """One label an image; accuracy is top-1."""

    name: Literal["classification"] = "classification"


class SegmentationTask(Section):
    """One class a pixel; accuracy is mIoU."""

    name: Literal["segmentation"] = "segmentation"
    ignore_index: int = Field(
        default=255, ge=0, le=65535, description="class of the pixels that count nowhere"
    )
    skip_zero: bool = Field(
        default=False,
        description="class 0 of the masks counts nowhere and the others from 1, as in ADE20K",
    )
    window: Size | None = Field(
        default=None,
        description="[Y, X] of the windows that slide over an image when it is scored, the space's "
        "size; null: the whole image at once",
    )
    stride: Size | None = Field(
        default=None, description="[Y, X] from window to window; null: two thirds of the window"
    )

    @model_validator(mode="after")
    def _stride_belongs_to_a_window(self) -> Self:
        if self.stride is not None and self.window is None:
            raise ValueError("stride belongs to a window, but none is given")
        return self


TaskSection = Annotated[ClassificationTask | SegmentationTask, Field(discriminator="name")]
