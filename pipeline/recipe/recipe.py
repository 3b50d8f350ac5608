"""The recipe: one YAML file a job, checked whole before anything runs."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from pipeline.errors import RecipeError
from pipeline.files import write_atomically
from pipeline.recipe.data import Data
from pipeline.recipe.document import Location, read_document
from pipeline.recipe.errors import Mistake, dotted, find_mistakes
from pipeline.recipe.section import Section, Weights
from pipeline.recipe.sections import (
    Accuracy,
    Hardware,
    Launch,
    RetrainSettings,
    Search,
    Space,
    Tracking,
    TrainSettings,
)
from pipeline.recipe.tasks import ClassificationTask, TaskSection


class Recipe(Section):
    """Everything that a job needs to know.

    File names inside a recipe are relative to the folder of its file; here they are absolute, and so they are in
    the resolved recipe that a run directory keeps.
    """

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="of the job, for folders and W&B: letters, digits, dot, underscore and hyphen",
    )
    task: TaskSection = ClassificationTask()
    space: Space
    weights: Weights | None = Field(
        default=None, description="file or hub id of the base model's weights; null: train it first"
    )
    data: Data | None = Field(
        default=None, description="may be absent when a predictor gives the accuracies"
    )
    hardware: Hardware = Field(default_factory=lambda: Hardware.model_validate({}))
    accuracy: Accuracy = Accuracy()
    train: TrainSettings = TrainSettings()
    retrain: RetrainSettings = RetrainSettings()
    search: Search = Search()
    tracking: Tracking = Tracking()
    launch: Launch = Launch()

    @model_validator(mode="after")
    def _data_where_needed(self) -> Self:
        if self.data is None and self.accuracy.source == "data":
            raise ValueError("the section data is missing, and accuracy.source is data")
        return self

    def data_for(self, purpose: str) -> Data:
        """The data section.

        Args:
            purpose: what needs it, for the error: ``retraining``.

        Raises:
            RecipeError: this recipe has none.
        """
        if self.data is None:
            raise RecipeError(
                f"{purpose} needs images, but the recipe {self.name} has no section data"
            )
        return self.data

    def dump(self) -> dict[str, Any]:
        """All fields, defaults included, as plain values that :meth:`save` and JSON can write."""
        return self.model_dump(mode="json")

    def save(self, file: str | os.PathLike[str]) -> None:
        """Writes the resolved recipe as YAML; :func:`load_recipe` reads an equal one back."""
        write_atomically(file, yaml.safe_dump(self.dump(), sort_keys=False, allow_unicode=True))

    def with_overrides(
        self, overrides: Mapping[str, Any], *, options: Mapping[str, str] | None = None
    ) -> "Recipe":
        """A copy with some fields set, checked as the file was.

        Args:
            overrides: dotted field -> value, such as ``{"search.trials": 20}``. File names are relative to the
                working directory.
            options: dotted field -> what the user typed for it (``--trials``), for the error.

        Raises:
            RecipeError: no such field, or a value that it can't have; names the option and the field.
        """
        values = self.dump()
        for field, value in overrides.items():
            *sections, last = field.split(".")
            inner = values
            for section in sections:
                inner[section] = inner.get(section) or {}
                inner = inner[section]
                if not isinstance(inner, dict):
                    raise RecipeError(
                        f"{_origin(field.split('.'), overrides, options)}: {section} has no fields"
                    )
            inner[last] = value
        try:
            return Recipe.model_validate(values, context={"folder": Path.cwd()})
        except ValidationError as error:
            mistakes = find_mistakes(error, Recipe, list)
            origin = _origin(mistakes[0].location, overrides, options)
            raise RecipeError(f"{origin}: {_first(mistakes)}") from error


def load_recipe(file: str | os.PathLike[str]) -> Recipe:
    """Reads and checks a recipe.

    Args:
        file: YAML, read by its safe subset. Relative file names in it start from its folder.

    Raises:
        RecipeError: one sentence with file, line, field, rule, value and the nearest legal name; of several
            mistakes the first in the file, and how many more there are.
    """
    document = read_document(Path(file))
    folder = Path(file).absolute().parent
    try:
        return Recipe.model_validate(document.values, context={"folder": folder})
    except ValidationError as error:
        mistakes = find_mistakes(error, Recipe, document.holds)
        mistakes.sort(key=lambda mistake: document.line(mistake.location))
        line = document.line(mistakes[0].location)
        raise RecipeError(f"{document.file}:{line}: {_first(mistakes)}") from error


def _first(mistakes: list[Mistake]) -> str:
    more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    return mistakes[0].sentence + more


def _origin(
    location: Location, overrides: Mapping[str, Any], options: Mapping[str, str] | None
) -> str:
    """What the user typed for the override that a mistake is about."""
    wrong = dotted(location)
    for field in overrides:
        if (
            field == wrong
            or field.startswith(wrong + ".")
            or wrong.startswith((field + ".", field + "["))
        ):
            return (options or {}).get(field, f"option {field}")
    return "options " + ", ".join((options or {}).get(field, field) for field in overrides)
