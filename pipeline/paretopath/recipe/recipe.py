"""The recipe: one YAML file a job, checked whole before anything runs."""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from paretopath.errors import RecipeError
from paretopath.files import write_atomically
from paretopath.recipe.calibration import Calibration
from paretopath.recipe.data import Data
from paretopath.recipe.document import Location, read_document, write_document
from paretopath.recipe.errors import Mistake, dotted, find_mistakes, parts_held
from paretopath.recipe.launch import Launch
from paretopath.recipe.search import Search
from paretopath.recipe.section import Section, Weights
from paretopath.recipe.sections import Accuracy, Hardware, Space, Tracking
from paretopath.recipe.tasks import AnyTask, TaskSection, default_section, named_section
from paretopath.recipe.training import Exits, RetrainSettings, Train


class Recipe(Section):
    """Everything that a job needs to know.

    File names inside a recipe are relative to the folder of its file; here they are absolute, and
    so they are in the resolved recipe that a run directory keeps.
    """

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="of the job, for folders and W&B: letters, digits, dot, underscore and hyphen",
    )
    task: AnyTask = Field(
        default_factory=default_section,
        description="what is predicted: classification, segmentation, or module:Class",
    )
    space: Space
    weights: Weights | dict[str, Weights] | None = Field(
        default=None,
        description="file or hub id of the base model's weights, FILE#KEY for those under a key of "
        "the file (model.pth#model_ema); of a family of models, one for each; what they lack is "
        "trained, see train.parameters; null: train all of it",
    )
    data: Data | None = Field(
        default=None, description="may be absent when a predictor gives the accuracies"
    )
    hardware: Hardware = Field(default_factory=lambda: Hardware.model_validate({}))
    accuracy: Accuracy = Accuracy()
    calibration: Calibration = Calibration()
    train: Train = Train()
    exits: Exits = Exits()
    retrain: RetrainSettings = RetrainSettings()
    search: Search = Search()
    tracking: Tracking = Tracking()
    launch: Launch = Launch()

    @model_validator(mode="after")
    def _data_where_needed(self) -> Self:
        if self.data is None and self.accuracy.source == "data":
            raise ValueError("the section data is missing, and accuracy.source is data")
        return self

    @model_validator(mode="after")
    def _weights_from_somewhere(self) -> Self:
        untrained = self.weights is None and self.train.parameters == "none"
        if untrained and self.accuracy.source == "data":
            raise ValueError("train.parameters none needs weights, but the recipe names none")
        return self

    @model_validator(mode="after")
    def _exits_of_given_weights(self) -> Self:
        wanted = self.exits
        if self.weights is None and (wanted.weights == "same" or wanted.fit == "closed_form"):
            field, value = ("weights", "same") if wanted.weights == "same" else ("fit", wanted.fit)
            raise ValueError(f"exits.{field} {value} needs weights, but the recipe names none")
        if wanted.search and self.accuracy.source == "predictor":
            raise ValueError("exits.search needs images, but accuracy.source is predictor")
        if wanted.fit == "closed_form" and self.train.parameters == "all":
            raise ValueError("exits.fit closed_form trains exits alone, not train.parameters all")
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
        """All fields, defaults included, as the plain values that YAML and JSON have."""
        plain: dict[str, Any] = _plain(self.model_dump())
        return plain

    def save(self, file: str | os.PathLike[str]) -> None:
        """Writes the resolved recipe as YAML; :func:`load_recipe` reads an equal one back."""
        write_atomically(file, write_document(self.dump()))

    def with_overrides(
        self, overrides: Mapping[str, Any], *, options: Mapping[str, str] | None = None
    ) -> "Recipe":
        """A copy with some fields set, checked as a file is.

        Args:
            overrides: dotted field -> value, such as ``{"search.trials": 20}``. File names are
                relative to the working directory.
            options: dotted field -> what the user typed for it (``--trials``), for the error.

        Raises:
            RecipeError: no such field, or a value that it can't have; names option and field.
        """
        names = {field: (options or {}).get(field, f"option {field}") for field in overrides}
        values = self.dump()
        for field, value in overrides.items():
            *sections, last = field.split(".")
            inner = values
            for depth, section in enumerate(sections):
                inner = inner.get(section, {})
                if not isinstance(inner, dict):
                    absent = ".".join(sections[: depth + 1])
                    raise RecipeError(
                        f"{names[field]}: {field} can't be set, because {absent} has no fields"
                        f" in this recipe"
                    )
            inner[last] = value
        try:
            return Recipe.model_validate(values, context={"folder": Path.cwd()})
        except ValidationError as error:
            mistakes = _mistakes(error, values, partial(parts_held, values))
            raise RecipeError(f"{_typed(mistakes[0], names)}: {_first(mistakes)}") from error


def load_recipe(file: str | os.PathLike[str]) -> Recipe:
    """Reads and checks a recipe.

    Args:
        file: YAML, read by its safe subset. Relative file names in it start from its folder.

    Raises:
        RecipeError: one sentence with file, line, field, rule, value and the nearest legal name;
            of several mistakes the first in the file, and how many more there are.
    """
    document = read_document(Path(file))
    folder = Path(file).absolute().parent
    try:
        return Recipe.model_validate(document.values, context={"folder": folder})
    except ValidationError as error:
        mistakes = _mistakes(error, document.values, document.held)
        mistakes.sort(key=lambda mistake: document.line(mistake.location))
        line = document.line(mistakes[0].location)
        raise RecipeError(f"{document.file}:{line}: {_first(mistakes)}") from error


def load_resolved(file: str | os.PathLike[str]) -> Recipe:
    """The recipe of a run, as it was resolved; see :func:`load_recipe`.

    What a run of before repair did not know of, it did not do: its accuracies are of paths that
    were not repaired.
    """
    recipe = load_recipe(file)
    if "repair" in recipe.calibration.model_fields_set:
        return recipe
    calibration = recipe.calibration.model_copy(update={"repair": False})
    return recipe.model_copy(update={"calibration": calibration})


def _mistakes(
    error: ValidationError,
    values: Mapping[str, Any],
    held: Callable[[Location], Sequence[int | str]],
) -> list[Mistake]:
    chosen = {TaskSection: named_section(values.get("task"))}
    return find_mistakes(error, Recipe, held, chosen=chosen)


def _first(mistakes: list[Mistake]) -> str:
    more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    return mistakes[0].sentence + more


def _typed(mistake: Mistake, names: Mapping[str, str]) -> str:
    """What the user typed for the override that a mistake is about; all if it can't be said."""
    wrong = dotted(mistake.location)
    for field, name in names.items():
        if f"{wrong}.".startswith((f"{field}.", f"{field}[")) or field.startswith(f"{wrong}."):
            return name
    return ", ".join(names.values())


def _plain(value: Any) -> Any:
    """Lists in place of tuples."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
