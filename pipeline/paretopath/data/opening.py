"""The data of a recipe, with the targets that its task needs."""

from paretopath.data.loading import load_data
from paretopath.data.masks import load_masks
from paretopath.data.splits import DataSplits
from paretopath.errors import DataError
from paretopath.recipe import Data, TaskSection
from paretopath.recipe.tasks import SegmentationTask


def open_data(
    config: Data,
    task: TaskSection,
    *,
    input_shape: tuple[int, int, int],
    num_classes: int | None = None,
) -> DataSplits:
    """Opens a data set and fixes its splits; see :func:`load_data` and :func:`load_masks`.

    Args:
        config: the recipe's section ``data``.
        task: its section ``task``.
        input_shape: (C, Y, X) of the images that the model takes.
        num_classes: that the model tells apart; None where the family doesn't say.

    Raises:
        DataError: see there; or masks for a family that doesn't say how many classes it knows.
    """
    if not isinstance(task, SegmentationTask):
        return load_data(config, input_shape=input_shape, num_classes=num_classes)
    if num_classes is None:
        raise DataError("segmentation needs a space that has num_classes")
    return load_masks(config, task, input_shape=input_shape, num_classes=num_classes)
