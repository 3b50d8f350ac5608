"""What a recipe's section ``task`` makes: the task, and its data."""

from typing import TYPE_CHECKING

from paretopath.recipe import Data, TaskSection, TrainSettings
from paretopath.tasks.task import Task

if TYPE_CHECKING:
    from paretopath.data import DataSplits


def create_task(options: TaskSection, *, training: TrainSettings) -> Task:
    """The task of a recipe.

    Args:
        options: the recipe's section ``task``.
        training: ``train`` or ``retrain``, whose losses the task computes.
    """
    task: Task = options.create(training)
    return task


def open_data(
    config: Data,
    options: TaskSection,
    *,
    input_shape: tuple[int, int, int],
    num_classes: int | None = None,
) -> "DataSplits":
    """Opens a data set, with the targets that a task needs, and fixes its splits.

    Args:
        config: the recipe's section ``data``.
        options: its section ``task``.
        input_shape: (C, Y, X) of the images that the model takes.
        num_classes: that the model tells apart; None where the family doesn't say.

    Raises:
        DataError: the source can't be read, or is not what task and model need.
    """
    data: DataSplits = options.open_data(config, input_shape=input_shape, num_classes=num_classes)
    return data
