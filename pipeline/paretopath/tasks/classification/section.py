"""Classification as a recipe names it; imports nothing heavy."""

from typing import Any, Literal

from paretopath.recipe import Data, TaskSection, TrainSettings


class ClassificationSection(TaskSection):
    """One label an image; accuracy is top-1."""

    name: Literal["classification"] = "classification"

    def create(self, training: TrainSettings) -> Any:
        """See :class:`TaskSection`."""
        from paretopath.tasks.classification.task import Classification

        return Classification(
            label_smoothing=training.label_smoothing,
            distillation_weight=training.distillation_weight,
            distillation_temperature=training.distillation_temperature,
        )

    def open_data(
        self, data: Data, *, input_shape: tuple[int, int, int], num_classes: int | None
    ) -> Any:
        """See :class:`TaskSection`."""
        from paretopath.data import load_data

        return load_data(data, input_shape=input_shape, num_classes=num_classes)
