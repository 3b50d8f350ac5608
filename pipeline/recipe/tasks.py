"""The tasks that a recipe can name, each with its options. Their code is ``pipeline/tasks/<name>.py``."""

from typing import Literal

from pipeline.recipe.section import Section


class ClassificationTask(Section):
    """One label an image; accuracy is top-1."""

    name: Literal["classification"] = "classification"


# A second task makes this a union that its `name` decides.
TaskSection = ClassificationTask
