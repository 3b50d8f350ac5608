"""The ``task`` section: each task has its own, which is found by the task's name."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, SerializeAsAny, ValidationError, ValidationInfo, WrapValidator
from pydantic_core import InitErrorDetails

from paretopath import plugins
from paretopath.errors import InvalidValueError
from paretopath.recipe.data import Data
from paretopath.recipe.section import Section
from paretopath.recipe.training import TrainSettings

GROUP = "paretopath.tasks"


class TaskSection(Section):
    """A task as a recipe names it: what a task of one's own subclasses.

    Its fields are the task's options. A recipe is read without torch, so a section's module imports
    nothing heavy until one of its methods is called. See ``docs/new_task.md``.
    """

    name: str = Field(
        min_length=1,
        description="a registered task (classification, segmentation, detection) or module:Class",
    )

    def create(self, training: TrainSettings) -> Any:
        """The task, a :class:`~paretopath.tasks.task.Task`.

        Args:
            training: ``train`` or ``retrain``, whose losses the task computes.
        """
        raise NotImplementedError

    def open_data(
        self, data: Data, *, input_shape: tuple[int, int, int], num_classes: int | None
    ) -> Any:
        """The images and targets, a :class:`~paretopath.data.splits.DataSplits`.

        Args:
            data: the recipe's section.
            input_shape: (C, Y, X) of the images that the model takes.
            num_classes: of the model's outputs; None where its family doesn't say.

        Raises:
            DataError: the data is not what the task needs.
        """
        raise NotImplementedError


def section_class(name: str) -> type[TaskSection]:
    """The section of a task.

    Raises:
        InvalidValueError: there is no such task.
    """
    found = plugins.find(GROUP, name, kind="task")
    if not (isinstance(found, type) and issubclass(found, TaskSection)):
        raise InvalidValueError(f"task {name!r} must be a TaskSection, but {found!r} is none")
    return found


def named_section(values: Any) -> type[TaskSection]:
    """The section that a mapping's ``name`` asks for; the common part of all if there is none."""
    try:
        return section_class(values["name"])
    except (InvalidValueError, TypeError, KeyError):
        return TaskSection


def default_section() -> TaskSection:
    """What a recipe that says nothing gets."""
    return section_class("classification").model_validate({})


def _by_name(value: Any, usual: Any, info: ValidationInfo) -> TaskSection:
    """Checks a section by the schema of the task that it names."""
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        section: TaskSection = usual(value)
        return section
    try:
        found = section_class(value["name"])
    except InvalidValueError as error:
        details = InitErrorDetails(
            type="value_error", loc=("name",), input=value["name"], ctx={"error": error}
        )
        raise ValidationError.from_exception_data("task", [details]) from error
    return found.model_validate(value, context=info.context)


AnyTask = Annotated[SerializeAsAny[TaskSection], WrapValidator(_by_name)]
