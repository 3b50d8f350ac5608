"""Detection as a recipe names it; imports nothing heavy."""

from typing import Any, Literal

from pydantic import Field

from paretopath.errors import DataError
from paretopath.recipe import Data, TaskSection, TrainSettings


class DetectionSection(TaskSection):
    """Boxes with a class; accuracy is mAP over overlaps from 0.5 to 0.95."""

    name: Literal["detection"] = "detection"
    box_format: Literal["xywh", "xyxy", "cxcywh"] = Field(
        default="xywh",
        description="how boxes are stored in a column of objects: corner and size (COCO's), two "
        "corners, or centre and size; in pixels",
    )

    def create(self, training: TrainSettings) -> Any:
        """See :class:`TaskSection`."""
        from paretopath.tasks.detection.task import Detection

        return Detection(distillation_weight=training.distillation_weight)

    def open_data(
        self, data: Data, *, input_shape: tuple[int, int, int], num_classes: int | None
    ) -> Any:
        """See :class:`TaskSection`."""
        from paretopath.tasks.detection.opening import load_objects

        if num_classes is None:
            raise DataError("detection needs a space that has num_classes")
        return load_objects(
            data, input_shape=input_shape, num_classes=num_classes, box_format=self.box_format
        )
