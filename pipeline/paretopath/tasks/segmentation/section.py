"""Segmentation as a recipe names it; imports nothing heavy."""

from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from paretopath.errors import DataError
from paretopath.recipe import Data, TaskSection, TrainSettings
from paretopath.recipe.section import Size

if TYPE_CHECKING:
    from paretopath.tasks.segmentation.windows import SlidingWindow


class SegmentationSection(TaskSection):
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

    def create(self, training: TrainSettings) -> Any:
        """See :class:`TaskSection`."""
        from paretopath.tasks.segmentation.task import Segmentation

        return Segmentation(
            ignore_index=self.ignore_index,
            label_smoothing=training.label_smoothing,
            distillation_weight=training.distillation_weight,
            distillation_temperature=training.distillation_temperature,
            window=self.sliding_window(),
        )

    def open_data(
        self, data: Data, *, input_shape: tuple[int, int, int], num_classes: int | None
    ) -> Any:
        """See :class:`TaskSection`."""
        from paretopath.tasks.segmentation.labels import Labels
        from paretopath.tasks.segmentation.opening import load_masks

        if num_classes is None:
            raise DataError("segmentation needs a space that has num_classes")
        labels = Labels(num_classes, self.ignore_index, self.skip_zero)
        return load_masks(data, labels, input_shape=input_shape, window=self.sliding_window())

    def sliding_window(self) -> "SlidingWindow | None":
        """The window that is asked for, or None."""
        from paretopath.tasks.segmentation.windows import SlidingWindow

        if self.window is None:
            return None
        size = (self.window[0], self.window[-1])
        stride = self.stride or tuple(max(1, 2 * length // 3) for length in size)
        return SlidingWindow(size, (stride[0], stride[-1]))
