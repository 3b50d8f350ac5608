"""Tasks by the name that a recipe gives them."""

from importlib import import_module

from paretopath.recipe import TaskSection, TrainSettings
from paretopath.tasks.task import Task


def create_task(options: TaskSection, *, training: TrainSettings) -> Task:
    """The task of a recipe.

    A task is a file ``pipeline/tasks/<name>.py`` whose function ``create(options, training)`` makes
    it, and its options in ``pipeline/recipe/tasks.py``.

    Args:
        options: the recipe's section ``task``.
        training: ``train`` or ``retrain``, whose loss the task computes.
    """
    task: Task = import_module(f"paretopath.tasks.{options.name}").create(options, training)
    return task
