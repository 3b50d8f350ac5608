"""The tasks that a recipe can name, with their options; their code is in ``pipeline/tasks``."""

from typing import Literal

from pipeline.recipe.section import Section


class ClassificationTask(Section):
    """One label an image; accuracy is top-1."""

    name: Literal["classification"] = "classification"


# A second task makes this a union that its `name` decides.
TaskSection = ClassificationTask
